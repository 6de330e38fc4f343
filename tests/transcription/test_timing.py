from hypothesis import given
from hypothesis import strategies as st

from voxvec.transcription.timing import spoken

TEXT = "Good morning to you. This is all there is to say."


def test_a_segment_is_what_was_said_between_two_pauses_and_has_their_edges():
    first, second = spoken(TEXT, "en", [(0.5, 2.0), (3.0, 4.0), (4.3, 5.5)])

    assert (first.text, first.start, first.end, first.timing) == ("Good morning to you.", 0.5, 2.0, "speech")
    assert (second.text, second.start, second.end) == ("This is all there is to say.", 3.0, 5.5)
    assert {word.timing for segment in (first, second) for word in segment.words} == {"estimated"}
    assert (first.words[0].start, first.words[-1].end) == (0.5, 2.0)


def test_without_speech_or_without_text_there_is_no_segment():
    assert spoken(TEXT, "en", []) == ()
    assert spoken(" ", "en", [(0.0, 1.0)]) == ()


@given(st.text("ab c日本。.", max_size=60), st.sampled_from(["en", "ja"]), st.lists(st.floats(0.01, 4), max_size=12))
def test_nothing_of_the_text_is_lost(text, language, lengths):
    edges = [sum(lengths[:at]) for at in range(len(lengths) + 1)]
    spans = list(zip(edges[0::2], edges[1::2], strict=False))

    segments = spoken(text, language, spans)

    said = "".join(segment.text for segment in segments)
    assert said.replace(" ", "") == ("".join(text.split()) if spans else "")
    for segment in segments:
        assert segment.start <= segment.words[0].start + 1e-6
        assert segment.words[-1].end <= segment.end + 1e-6

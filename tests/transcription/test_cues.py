from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxvec import ConfigError
from voxvec.transcription.cues import Style, Timed, compose, style_for
from voxvec.transcription.scripts import columns, pieces


@st.composite
def talks(draw):
    """Pieces of speech: words of any length and script, with pauses now and then, and sometimes another speaker."""
    language = draw(st.sampled_from(["en", "ko", "ja"]))
    text = draw(st.lists(st.text("abc,.한국日本語。、ー「」é", min_size=1, max_size=12), max_size=60).map(" ".join))
    timed, at = [], 0.0
    for piece in pieces(text, language):
        at += draw(st.sampled_from([0.0, 0.0, 0.0, 0.1, 0.4, 0.51, 3.0]))
        length = draw(st.floats(0.0, 1.0))
        speaker = draw(st.sampled_from([None, None, None, "A", "B"]))
        timed.append(Timed(piece.text, at, at + length, piece.spaced, speaker))
        at += length
    return language, timed


@given(talks(), st.none() | st.integers(8, 60), st.integers(1, 3))
def test_every_piece_is_shown_once_in_lines_that_fit_and_never_across_a_pause(talk, width, lines):
    language, timed = talk
    style = style_for(language) if width is None else Style(width=width, lines=lines)

    cues = compose(timed, style)

    shown = "".join(cue.text for cue in cues).replace("\n", "").replace(" ", "")
    assert shown == "".join(piece.text for piece in timed)
    for cue in cues:
        rows = cue.text.split("\n")
        inside = [piece for piece in timed if cue.start <= piece.start and piece.end <= cue.end]
        assert len(rows) <= style.lines
        assert all(columns(row) <= style.width or len(pieces(row, language)) == 1 for row in rows)
        assert not any(b.start - a.end > style.pause for a, b in pairwise(inside))
        assert cue.end <= max((piece.end for piece in inside), default=cue.end) + style.linger + 1e-9


@given(talks())
def test_cues_are_in_order_and_end_before_the_next_begins(talk):
    language, timed = talk

    cues = compose(timed, style_for(language), until=timed[-1].end if timed else 0.0)

    assert all(cue.start <= cue.end for cue in cues)
    assert all(a.end <= b.start + 1e-9 for a, b in pairwise(cues))
    assert not cues or cues[-1].end <= timed[-1].end + 1e-9


@given(talks())
def test_two_speakers_never_share_a_cue(talk):
    _, timed = talk

    cues = compose(timed, Style())

    turns = [piece.speaker for piece in timed]
    assert len(cues) >= 1 + sum(a != b for a, b in pairwise(turns)) if turns else not cues


def said(text, language="en", rate=14.0):
    timed, at = [], 0.0
    for piece in pieces(text, language):
        timed.append(Timed(piece.text, at, at + len(piece.text) / rate, piece.spaced))
        at = timed[-1].end
    return timed


def test_a_cue_ends_with_a_sentence_or_a_clause_where_it_can():
    text = (
        "Heavy rain and strong winds will reach the coast tonight, and the roads may be under water. "
        "The school on the hill has a new music teacher."
    )

    assert [cue.text for cue in compose(said(text), Style())] == [
        "Heavy rain and strong winds\nwill reach the coast tonight,",
        "and the roads may be under water.",
        "The school on the hill\nhas a new music teacher.",
    ]


def test_korean_and_japanese_follow_their_own_customs():
    korean = compose(said("안녕하세요 여러분, 오늘은 날씨가 좋네요.", "ko", 6), style_for("ko"))
    japanese = compose(said("今日はとても良い天気ですね。", "ja", 7), style_for("ja"))

    assert [cue.text for cue in korean] == ["안녕하세요 여러분,\n오늘은 날씨가 좋네요."]
    assert [cue.text for cue in japanese] == ["今日はとても\n良い天気ですね。"]


def test_a_short_cue_stays_a_little_but_not_into_the_next():
    alone = compose([Timed("Yes.", 1.0, 1.2)], Style())
    followed = compose([Timed("Yes.", 1.0, 1.2, speaker="A"), Timed("No.", 1.3, 2.5, speaker="B")], Style())

    assert alone[0].end == pytest.approx(1.45)
    assert followed[0].end == pytest.approx(1.3 - 1 / 12)


def test_the_end_of_a_segment_ends_a_cue_unless_that_were_too_brief():
    long = [Timed("the cat sleeps", 0, 1.5, closes=True), Timed("a dog barks", 1.5, 3.0, closes=True)]
    brief = [Timed("oh", 0, 0.2, closes=True), Timed("a dog barks", 0.2, 3.0, closes=True)]

    assert len(compose(long, Style())) == 2
    assert len(compose(brief, Style())) == 1


@pytest.mark.parametrize("wrong", [{"width": 0}, {"lines": -1}, {"speed": float("nan")}, {"pause": -0.1}])
def test_a_style_that_cannot_be_is_refused(wrong):
    (name,) = wrong

    with pytest.raises(ConfigError, match=f"Style.{name} must be"):
        Style(**wrong)


def test_an_unknown_language_gets_the_latin_style():
    assert style_for(None) == style_for("de") == Style()
    assert style_for("ja-JP").width == 26

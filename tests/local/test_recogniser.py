import sys
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxvec.errors import MissingExtraError
from voxvec.local import recogniser, town_radio
from voxvec.local.brain import HeardWord
from voxvec.local.recogniser import Recogniser, segments
from voxvec.transcription import samples


def line(number):
    """One line of the bundled recording, as samples."""
    demo = town_radio.load()
    spoken = demo.lines[number]
    return samples.read(demo.audio)[int(spoken.start * samples.RATE) : int(spoken.end * samples.RATE)]


def test_words_come_with_times_and_without_a_trace_of_earlier_ones(wav, capfd):
    pytest.importorskip("pocketsphinx")
    part = line(1)[: int(2.4 * samples.RATE)]
    weather, end = wav(part), wav(line(7)[: samples.RATE])
    ears = Recogniser()

    first = ears.hear(weather)
    ears.hear(end)

    assert ears.hear(weather) == first
    assert "heavy rain and strong" in first.text
    assert first.duration == pytest.approx(2.4)
    assert all(0 <= word.start < word.end <= first.duration + 0.02 for word in first.words)
    assert all(0 <= word.probability <= 1 for word in first.words)
    assert capfd.readouterr() == ("", "")


def test_silence_and_nothing_at_all_are_heard_as_nothing(wav):
    pytest.importorskip("pocketsphinx")
    ears = Recogniser()

    assert ears.hear(wav(np.zeros(16_000))).words == ()
    assert ears.hear(wav(np.zeros((0, 1)))).duration == 0


def test_without_the_extra_the_line_to_install_it_is_given(monkeypatch, wav):
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)

    with pytest.raises(MissingExtraError, match=r"pip install 'voxvec\[local\]'"):
        Recogniser().hear(wav(np.zeros(16_000)))


def test_long_recordings_are_cut_where_they_are_quietest():
    random = np.random.default_rng(0)
    sound = random.normal(size=40 * samples.RATE).astype("f4")
    for second in (9, 21, 33):
        sound[second * samples.RATE : int((second + 0.6) * samples.RATE)] = 0

    pieces = list(recogniser._pieces(sound))

    assert [round(start / samples.RATE, 1) for start, _ in pieces] == pytest.approx([0, 9.3, 21.3, 33.3], abs=0.3)
    assert np.array_equal(np.concatenate([piece for _, piece in pieces]), sound)


def test_fillers_are_left_out_and_other_ways_to_say_a_word_are_that_word():
    found = [
        SimpleNamespace(word=word, start_frame=start, end_frame=end, prob=prob)
        for word, start, end, prob in [("<s>", 0, 9, 1.0), ("the(2)", 10, 19, 1.0001), ("[NOISE]", 20, 29, 0.5)]
    ]

    assert list(recogniser._words(found, 2.0)) == [HeardWord("the", 2.1, 2.2, 1.0)]


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(1, 100), st.none() | st.floats(0, 1)), max_size=20))
def test_segments_hold_every_word_and_part_at_pauses(gaps):
    words, time = [], 0.0
    for number, (gap, length, probability) in enumerate(gaps):
        start = time + gap / 100
        time = start + length / 100
        words.append(HeardWord(f"w{number}", start, time, probability))

    heard = segments(words)

    assert [word for segment in heard for word in segment.text.split()] == [word.text for word in words]
    assert all(after.start - before.end >= 0.5 for before, after in pairwise(heard))
    assert all(segment.avg_logprob <= 0 for segment in heard)

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxvec.transcription import Word
from voxvec.transcription.aligning import borrow, spread
from voxvec.transcription.scripts import pieces

texts = st.lists(st.text("abcé한국日本。,.!? ", min_size=1, max_size=12), max_size=30).map(" ".join)


@st.composite
def stretches(draw):
    lengths = draw(st.lists(st.tuples(st.floats(0.05, 30), st.floats(0.05, 5)), min_size=1, max_size=8))
    found, at = [], 0.0
    for length, pause in lengths:
        found.append((at + pause, at + pause + length))
        at += pause + length
    return found


def inside(start, end, spans):
    return any(a - 1e-6 <= start and end <= b + 1e-6 for a, b in spans)


@given(texts, st.sampled_from(["en", "ko", "ja", None]), stretches())
def test_shared_out_times_are_in_order_and_never_in_a_pause(text, language, spans):
    found = pieces(text, language)

    times = spread(found, spans)

    assert len(times) == len(found)
    assert all(start <= end for start, end in times)
    assert all(inside(start, end, spans) for start, end in times)
    assert all(a[1] <= b[0] + 1e-6 for a, b in pairwise(times))
    if found:
        assert times[0][0] >= spans[0][0] - 1e-6
        assert times[-1][1] <= spans[-1][1] + 1e-6


def test_a_longer_word_takes_longer():
    assert spread(pieces("a bbb", "en"), [(1.0, 5.0)]) == [(1.0, 2.0), (2.0, 5.0)]


def test_the_end_of_a_sentence_moves_to_the_pause():
    found = pieces("One two. Three four five six.", "en")

    times = spread(found, [(0.0, 2.0), (3.0, 6.0)])

    assert times[1][1] == pytest.approx(2.0)
    assert times[2][0] == pytest.approx(3.0)


def test_without_speech_there_are_no_times():
    assert spread(pieces("hello", "en"), []) == []
    assert spread([], [(0.0, 1.0)]) == []


def words(*named):
    return [Word(text, float(at), at + 0.5, "server") for at, text in enumerate(named)]


def test_times_are_borrowed_from_the_same_words_however_they_are_spelt():
    found = borrow(
        pieces("Ask not, WHAT your country can do!", "en"),
        words("ask", "not", "what", "your", "country", "can", "do"),
        start=0,
        end=7,
    )

    assert found == [(at, at + 0.5, True) for at in range(7)]


def test_a_word_that_nobody_timed_stands_between_its_neighbours():
    found = borrow(pieces("one twenty three", "en"), words("one", "two", "three"), start=0, end=9)

    assert found == [(0, 0.5, True), (0.5, 2.0, False), (2, 2.5, True)]


def test_what_has_no_sound_has_no_time_of_its_own():
    found = borrow(pieces("one … two", "en"), words("one", "…", "two"), start=0, end=3)

    assert found == [(0, 0.5, True), (0.5, 2.0, False), (2, 2.5, True)]


def test_words_before_and_behind_all_others_reach_to_the_edges():
    found = borrow(pieces("oh one ah", "en"), [Word("one", 2.0, 3.0, "server")], start=1, end=5)

    assert found == [(1, 2.0, False), (2.0, 3.0, True), (3.0, 5, False)]


@given(texts, st.lists(st.text("abc日本한", min_size=1, max_size=4), max_size=20))
def test_borrowed_times_are_in_order_whatever_the_two_texts_are(text, heard):
    found = pieces(text, None)
    times = borrow(found, words(*heard), start=0, end=len(heard) + 1)

    assert len(times) == len(found)
    bounds = np.array([time[:2] for time in times]).ravel()
    assert (np.diff(bounds) >= -1e-6).all()

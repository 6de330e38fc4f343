import io
import wave
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxvec import ConfigError, local
from voxvec.transcription.speech import levels, speech_spans

RATE = 16_000
rng = np.random.default_rng(7)


def noise(seconds, level):
    """Sound at a level of so many dB of full scale."""
    return (rng.standard_normal(int(seconds * RATE)) * 10 ** (level / 20)).astype(np.float32)


def seconds(spans):
    return [(span.start / RATE, span.stop / RATE) for span in spans]


@given(
    st.lists(st.tuples(st.floats(0.4, 4), st.floats(0.2, 4)), min_size=1, max_size=5),
    st.sampled_from([-90, -70, -50]),
    st.sampled_from([-35, -20, -6]),
)
@settings(max_examples=40, deadline=None)
def test_sounds_are_found_within_a_tenth_of_a_second_whatever_the_levels(pattern, quiet, loud):
    if loud - quiet < 25:
        quiet -= 20
    parts, truth, at = [], [], 0.0
    for pause, sound in pattern:
        parts += [noise(pause, quiet), noise(sound, loud)]
        truth.append((at + pause, at + pause + sound))
        at += pause + sound
    parts.append(noise(0.5, quiet))

    found = seconds(speech_spans(np.concatenate(parts), RATE, padding=0))

    assert len(found) == len(truth)
    assert np.abs(np.array(found) - np.array(truth)).max() < 0.1


@given(st.integers(0, 3000), st.floats(0, 0.3), st.floats(0, 1), st.floats(0, 0.5))
@settings(max_examples=50, deadline=None)
def test_spans_are_in_order_apart_and_within_the_recording(n, least_speech, least_silence, padding):
    samples = rng.standard_normal(n).astype(np.float32) * np.float32(0.3) * (rng.random(n) < 0.5)

    spans = speech_spans(samples, 100, least_speech=least_speech, least_silence=least_silence, padding=padding)

    assert all(0 <= span.start < span.stop <= n for span in spans)
    assert all(a.stop <= b.start for a, b in pairwise(spans))


def test_the_lines_of_the_town_radio_are_found_where_they_are():
    recording = local.demo_recording()
    with wave.open(io.BytesIO(recording.audio)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768

    found = seconds(speech_spans(samples, RATE))

    truth = [(line.start, line.end) for line in recording.lines]
    assert len(found) == 8
    assert np.abs(np.array(found) - np.array(truth)).max() < 0.3


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.zeros(0, np.float32), []),
        (np.zeros(RATE, np.float32), []),
        (noise(1, -80), []),
        (noise(1, -20), [(0.0, 1.0)]),
    ],
    ids=["nothing", "zeros", "hiss", "a tone all through"],
)
def test_what_never_changes_is_silence_if_it_is_quiet_and_speech_if_not(samples, expected):
    assert seconds(speech_spans(samples, RATE)) == expected


def test_a_street_that_grows_louder_does_not_drown_the_speech():
    background = np.concatenate([noise(60, -70), noise(60, -40)])
    for start in (10, 50, 80, 110):
        background[start * RATE : (start + 2) * RATE] += noise(2, -15)

    found = seconds(speech_spans(background, RATE))

    # Right behind the change the louder street passes for speech, which costs a little and loses nothing.
    assert all(any(a <= start + 0.1 and start + 1.9 <= b for a, b in found) for start in (10, 50, 80, 110))
    assert [round(start) for start, _ in found] == [10, 50, 60, 110]


def test_levels_are_those_of_frames_of_ten_milliseconds():
    samples = np.concatenate([np.full(160, 1.0, np.float32), np.zeros(160, np.float32), np.full(80, 0.1, np.float32)])

    assert levels(samples, RATE) == pytest.approx([0, -120, -20], abs=1e-3)


def test_several_channels_are_refused():
    with pytest.raises(ConfigError, match=r"one channel, shape \(n,\), not \(2, 2\)"):
        speech_spans(np.zeros((2, 2), np.float32), RATE)
    with pytest.raises(ConfigError, match="0 s or more"):
        speech_spans(np.zeros(2, np.float32), RATE, padding=-1)

import io
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxvec.errors import AudioError, MissingExtraError
from voxvec.transcription import samples


def tone(hertz, rate, seconds=0.5):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 24_000, 32_000, 44_100, 48_000])
def test_a_tone_keeps_its_pitch_loudness_and_place(rate):
    got = samples.resample(tone(1000, rate).astype("f4"), rate)
    expected = tone(1000, samples.RATE)[: len(got)]

    assert abs(len(got) - samples.RATE // 2) <= 1
    assert np.abs(got - expected)[200:-200].max() < 2e-3


@pytest.mark.parametrize(("hertz", "rate"), [(9_000, 44_100), (12_000, 48_000), (15_000, 32_000)])
def test_what_is_too_high_is_gone_instead_of_folded_down(hertz, rate):
    assert np.abs(samples.resample(tone(hertz, rate).astype("f4"), rate))[200:-200].max() < 1e-3


@given(st.integers(8_000, 96_000), st.integers(0, 400))
@settings(max_examples=30, deadline=None)
def test_any_rate_gives_the_right_number_of_samples(rate, count):
    assert len(samples.resample(np.ones(count, dtype=np.float32), rate)) == count * samples.RATE // rate


def test_channels_are_averaged(wav):
    left = tone(440, 16_000)

    got = samples.read(wav(np.stack([left, np.zeros_like(left)], axis=1)))

    assert np.abs(got - left / 2).max() < 1e-4


def test_too_few_samples_a_second_are_refused(wav):
    with pytest.raises(AudioError, match="6000 samples a second"):
        samples.read(wav(np.zeros(600), rate=6_000))


@pytest.mark.parametrize("width", [3, 4])
def test_other_widths_are_decoded_by_the_extra(wav, width):
    pytest.importorskip("av")
    assert np.abs(samples.read(wav(tone(440, 16_000), width=width)) - tone(440, 16_000)).max() < 1e-3


@pytest.mark.parametrize(("kind", "codec"), [("flac", "flac"), ("mp3", "libmp3lame"), ("ogg", "libopus")])
def test_other_containers_are_decoded_by_the_extra(kind, codec):
    av = pytest.importorskip("av")
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as out:
        stream = out.add_stream(codec, rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray((tone(440, 48_000) * 32767).astype("<i2")[None], format="s16", layout="mono")
        frame.sample_rate = 48_000
        out.mux([packet for part in (frame, None) for packet in stream.encode(part)])

    got = samples.read(file.getvalue())

    assert abs(len(got) - 8000) < 1500
    assert 0.4 < np.abs(got).max() < 0.6


@pytest.mark.parametrize("data", [b"", b"nonsense", b"RIFF\x00\x00\x00\x00WAVE"])
def test_what_cannot_be_decoded_is_an_audio_error(data):
    pytest.importorskip("av")
    with pytest.raises(AudioError, match="cannot be decoded"):
        samples.read(data)


def test_without_the_extra_the_line_to_install_it_is_given(monkeypatch, wav):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"^reading FLAC needs an optional .* pip install 'voxvec\[audio\]'$"):
        samples.read(b"fLaC")
    with pytest.raises(MissingExtraError, match=r"^reading a WAV of other than 16 bits needs"):
        samples.read(wav(tone(440, 16_000), width=3))
    with pytest.raises(AudioError, match="no known kind"):
        samples.read(b"nonsense")


def test_a_cut_off_file_keeps_its_whole_frames(wav):
    assert len(samples.read(wav(np.zeros((100, 2)))[:-3])) == 99

"""From a recording's bytes to what can be heard in it: mono samples at 16 kHz.

Promises the right pitch and no aliasing, for any rate from 8 kHz up. WAV of 16 bits needs the
standard library and NumPy alone, everything else the extra ``[audio]``.
"""

from __future__ import annotations

import io
import math
import wave
from typing import Final

import numpy as np
import numpy.typing as npt

from voxvec.errors import AudioError, MissingExtraError
from voxvec.transcription import audio

__all__ = ["RATE", "read", "resample"]

RATE: Final = 16_000
"""Samples per second: enough for speech, and what recognisers hear."""

_LOWEST_RATE: Final = 8_000
# Zero crossings of the kernel on either side, and how sharply its window falls: 80 dB down beyond the edge.
_CROSSINGS: Final = 24
_SHARPNESS: Final = 8.0


def read(data: bytes) -> npt.NDArray[np.float32]:
    """Samples of a recording, in [-1, 1], at `RATE`.

    Raises:
        AudioError: The bytes cannot be decoded, or the rate is below 8 kHz.
        MissingExtraError: They are no 16-bit WAV, and PyAV is not installed.
    """
    try:
        with wave.open(io.BytesIO(data)) as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            frames = file.readframes(file.getnframes())
    except (wave.Error, EOFError):
        return _decode(data)
    if width != 2:  # noqa: PLR2004 -- bytes in 16 bits
        return _decode(data)
    if rate < _LOWEST_RATE:
        raise AudioError(f"the recording has {rate} samples a second, speech needs at least {_LOWEST_RATE}")
    whole = len(frames) // (2 * channels) * 2 * channels
    samples = np.frombuffer(frames[:whole], "<i2").reshape(-1, channels).mean(axis=1, dtype=np.float32)
    return resample(samples / np.float32(32768), rate)


def _decode(data: bytes) -> npt.NDArray[np.float32]:
    try:
        import av.error  # noqa: PLC0415 -- an optional package, only for what the standard library cannot read
    except ImportError:
        raise MissingExtraError(f"reading {_kind(data)}", extra="audio") from None
    try:
        with av.open(io.BytesIO(data), mode="r") as container:
            resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
            frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
            frames += resampler.resample(None)
    except (av.error.FFmpegError, IndexError, ValueError) as error:
        raise AudioError(f"the recording cannot be decoded: {error}") from None
    parts = [frame.to_ndarray()[0] for frame in frames]
    return np.concatenate([np.empty(0, dtype=np.float32), *parts])


def _kind(data: bytes) -> str:
    container = audio.sniff(data)
    if container is None:
        raise AudioError("the recording cannot be decoded: it is of no known kind")
    return "a WAV of other than 16 bits" if container == "wav" else container.upper()


def resample(samples: npt.NDArray[np.float32], rate: int) -> npt.NDArray[np.float32]:
    """The same sound at `RATE`, by a Kaiser-windowed sinc.

    Args:
        samples: Mono, at ``rate``.
        rate: Samples per second.

    Source:
        J. O. Smith, *Digital Audio Resampling*, https://ccrma.stanford.edu/~jos/resample/.
    """
    if rate == RATE:
        return samples
    common = math.gcd(rate, RATE)
    up, down = RATE // common, rate // common
    out = np.zeros(len(samples) * up // down, dtype=np.float32)
    half = math.ceil(_CROSSINGS * max(1.0, down / up))
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(samples, (half, half + down)), 2 * half)
    # Output n lies at n * down / up in the input; all outputs with the same fraction share one kernel.
    for phase in range(min(up, len(out))):
        first, fraction = divmod(phase * down, up)
        count = len(out[phase::up])
        out[phase::up] = windows[first + 1 :: down][:count] @ _kernel(half, fraction / up, min(1.0, up / down))
    return out


def _kernel(half: int, fraction: float, cutoff: float) -> npt.NDArray[np.float32]:
    # The band ends a little early, because the window needs room to fall.
    edge = 0.95 * cutoff
    distance = np.arange(1 - half, half + 1) - fraction
    window = np.i0(_SHARPNESS * np.sqrt(np.clip(1 - (distance / half) ** 2, 0, None))) / np.i0(_SHARPNESS)
    kernel: npt.NDArray[np.float32] = (edge * np.sinc(edge * distance) * window).astype(np.float32)
    return kernel

"""Where somebody speaks in a recording, and where nobody does.

By energy alone: a frame is speech if it stands out from the noise around it, and what counts as noise is learnt from
the recording itself, so one setting serves a quiet studio and a busy street. Pure; ten minutes take some tens of
milliseconds. In doubt it is speech: silence that is sent costs a little, speech that is not sent is lost.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from voxvec.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

__all__ = ["Span", "levels", "speech_spans"]

FRAME = 0.01
"""Length of a frame [s]."""

_SMOOTH = 3  # frames that are averaged
_AROUND = 3000  # frames from which the noise is learnt: 30 s
_QUIET, _LOUD = 5, 99.7  # percentiles of the levels around that stand for noise and for speech: 0.2 s in a minute
_SHARE, _LEAST, _MOST = 0.3, 3.0, 9.0  # how far above the noise speech begins: a share of the range, bounded [dB]
_SILENCE = -65.0  # below this nothing is speech [dB of full scale]
_FLAT = 6.0  # a range below which nothing stands out: all of it is speech, or noise if it is quiet [dB]
_QUIET_NOISE = -50.0  # the level below which flat noise is no speech [dB of full scale]


class Span(NamedTuple):
    """A stretch with speech.

    Attributes:
        start: First sample.
        stop: First sample behind it.
    """

    start: int
    stop: int


def levels(samples: npt.NDArray[np.float32], rate: int) -> npt.NDArray[np.float32]:
    """Level of every frame of 10 ms in dB of full scale, at least -120; shape ``(ceil(n / frame),)``.

    Args:
        samples: One channel, in [-1, 1], shape ``(n,)``.
        rate: Samples per second.
    """
    size = _frame(rate)
    whole = len(samples) // size * size
    blocks = samples[:whole].reshape(-1, size)
    power = np.einsum("ij,ij->i", blocks, blocks) / size
    if whole < len(samples):
        rest = samples[whole:]
        power = np.append(power, np.float32(rest @ rest / len(rest)))
    found: npt.NDArray[np.float32] = (10 * np.log10(np.maximum(power, 1e-12))).astype(np.float32)
    return found


def _frame(rate: int) -> int:
    return max(1, round(rate * FRAME))


def speech_spans(
    samples: npt.NDArray[np.float32],
    rate: int,
    *,
    least_speech: float = 0.1,
    least_silence: float = 0.3,
    padding: float = 0.1,
) -> list[Span]:
    """Where somebody speaks.

    Args:
        samples: One channel, in [-1, 1], shape ``(n,)``.
        rate: Samples per second.
        least_speech: A shorter sound is no speech [s].
        least_silence: A shorter pause is part of the speech around it [s].
        padding: What is added on both sides, for soft beginnings and ends; never so much that two spans meet [s].

    Returns:
        In order, apart from each other, within the recording; none if all is silent.

    Raises:
        ConfigError: There are several channels, or a number is out of range.
    """
    if samples.ndim != 1 or rate < 1:
        raise ConfigError(f"speech is looked for in one channel, shape (n,), not {samples.shape}, at {rate} samples/s")
    if min(least_speech, least_silence, padding) < 0:
        raise ConfigError("least_speech, least_silence and padding must be 0 s or more")
    if not len(samples):
        return []
    loud = _loud(levels(samples, rate))
    frames = _bridged(_runs(loud), math.ceil(least_silence / FRAME))
    frames = [run for run in frames if run.stop - run.start >= least_speech / FRAME]
    return _padded(frames, _frame(rate), len(samples), round(padding * rate))


def _loud(level: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Which frames stand out; a frame between two thresholds goes with its neighbour, so that words keep their ends."""
    kernel = np.ones(_SMOOTH, np.float32) / _SMOOTH
    padded = np.pad(level, _SMOOTH // 2, mode="edge")
    smooth = np.convolve(padded, kernel, "valid")[: len(level)].astype(np.float32)
    noise, speech = _around(smooth, _QUIET), _around(smooth, _LOUD)
    span = speech - noise
    above = np.clip(_SHARE * span, _LEAST, _MOST)
    flat = span < _FLAT
    upper = np.where(flat, np.where(speech > _QUIET_NOISE, -np.inf, np.inf), noise + above)
    lower = np.where(flat, upper, noise + above / 2)
    upper, lower = np.maximum(upper, _SILENCE), np.maximum(lower, _SILENCE)
    possible = smooth > lower
    sure = smooth > upper
    found = np.zeros(len(level), bool)
    for run in _runs(possible):
        found[run.start : run.stop] = sure[run.start : run.stop].any()
    return found


def _around(level: npt.NDArray[np.float32], percent: float) -> npt.NDArray[np.float32]:
    """A percentile of the levels around every frame: taken every few seconds, and drawn out between."""
    n = len(level)
    if n <= 2 * _AROUND:
        return np.full(n, np.percentile(level, percent), np.float32)
    centres = np.arange(_AROUND // 2, n, _AROUND // 2)
    found = [np.percentile(level[max(0, c - _AROUND) : c + _AROUND], percent) for c in centres]
    return np.interp(np.arange(n), centres, found).astype(np.float32)


def _runs(mask: npt.NDArray[np.bool_]) -> list[Span]:
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return [Span(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def _bridged(runs: Sequence[Span], least: int) -> list[Span]:
    """Runs joined where the pause between them is shorter than this [frames]."""
    joined: list[Span] = []
    for run in runs:
        if joined and run.start - joined[-1].stop < least:
            joined[-1] = Span(joined[-1].start, run.stop)
        else:
            joined.append(run)
    return joined


def _padded(frames: Sequence[Span], size: int, length: int, padding: int) -> list[Span]:
    bare = [Span(run.start * size, min(length, run.stop * size)) for run in frames]
    if not bare:
        return []
    # Two neighbours share a pause that is too short for both paddings.
    rooms = [min(padding, (after.start - before.stop) // 2) for before, after in pairwise(bare)]
    return [
        Span(max(0, run.start - before), min(length, run.stop + after))
        for run, before, after in zip(bare, [padding, *rooms], [*rooms, padding], strict=True)
    ]

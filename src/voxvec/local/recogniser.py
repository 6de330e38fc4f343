"""Speech to text without a key or a network: PocketSphinx, English only, low accuracy.

Promises the same words for the same recording whatever was heard before, from any thread, and
silence on stderr. Needs the extra ``[local]``.
"""

from __future__ import annotations

import math
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from voxvec.errors import MissingExtraError
from voxvec.local.brain import Heard, HeardSegment, HeardWord
from voxvec.transcription import samples

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy.typing as npt

__all__ = ["Recogniser", "segments"]

_FRAMES_PER_SECOND: Final = 100
_PAUSE: Final = 0.5
# It hears short pieces better than long ones, and in less memory; they are cut where it is quietest.
_LONGEST: Final = 15.0
_SEARCHED: Final = 9.0
_QUIET: Final = 0.3
# Below -60 dB there is nobody, but the recogniser would hear somebody even in perfect silence.
_SILENCE: Final = 1e-3


class Recogniser:
    """One decoder, made at the first use."""

    def __init__(self) -> None:
        # The decoder keeps the state of its utterance on itself.
        self._lock = threading.Lock()
        self._decoder: Any = None

    def hear(self, data: bytes) -> Heard:
        """Words and segments of a recording.

        Raises:
            AudioError: It cannot be decoded.
            MissingExtraError: PocketSphinx is not installed, or PyAV where the format needs it.
        """
        sound = samples.read(data)
        audible = [(start, piece) for start, piece in _pieces(sound) if np.abs(piece).max() > _SILENCE]
        with self._lock:
            decoder = self._ready()
            words = [word for start, piece in audible for word in _listen(decoder, piece, start / samples.RATE)]
        heard = segments(words)
        text = " ".join(segment.text for segment in heard)
        return Heard(text, len(sound) / samples.RATE, segments=heard, words=tuple(words))

    def _ready(self) -> Any:
        if self._decoder is None:
            try:
                pocketsphinx: Any = import_module("pocketsphinx")
            except ImportError:
                raise MissingExtraError("speech to text without a key", extra="local") from None
            pocketsphinx.set_loglevel("FATAL")
            self._decoder = pocketsphinx.Decoder(samprate=samples.RATE)
        return self._decoder


def _listen(decoder: Any, sound: npt.NDArray[np.float32], offset: float) -> list[HeardWord]:
    # It goes on adapting to the voice it heard last; start where a new one would.
    decoder.reinit_feat()
    decoder.start_utt()
    decoder.process_raw((np.clip(sound, -1, 32767 / 32768) * 32768).astype("<i2").tobytes(), full_utt=True)
    decoder.end_utt()
    return list(_words(decoder.seg() or (), offset))


def _pieces(sound: npt.NDArray[np.float32]) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """The recording in pieces of at most 15 s, each with the number of its first sample."""
    start, longest = 0, int(_LONGEST * samples.RATE)
    while len(sound) - start > longest:
        end = _quietest(sound, start + longest)
        yield start, sound[start:end]
        start = end
    if start < len(sound):
        yield start, sound[start:]


def _quietest(sound: npt.NDArray[np.float32], end: int) -> int:
    frame = int(_QUIET * samples.RATE)
    first = end - int(_SEARCHED * samples.RATE)
    energy = np.square(sound[first:end]).reshape(-1, frame).sum(axis=1)
    return first + int(energy.argmin()) * frame + frame // 2


def _words(found: Iterable[Any], offset: float) -> Iterator[HeardWord]:
    for entry in found:
        # Fillers stand in brackets, other ways to say a word carry a number: "the(2)".
        if entry.word[0] not in "<[":
            start, end = entry.start_frame / _FRAMES_PER_SECOND, (entry.end_frame + 1) / _FRAMES_PER_SECOND
            probability = min(1.0, max(0.0, float(entry.prob)))
            yield HeardWord(entry.word.partition("(")[0], round(offset + start, 2), round(offset + end, 2), probability)


def segments(words: Sequence[HeardWord]) -> tuple[HeardSegment, ...]:
    """Words between pauses of half a second or more."""
    groups: list[list[HeardWord]] = []
    for word in words:
        if not groups or word.start - groups[-1][-1].end >= _PAUSE:
            groups.append([])
        groups[-1].append(word)
    return tuple(map(_segment, groups))


def _segment(words: Sequence[HeardWord]) -> HeardSegment:
    logs = [math.log(max(1e-6, 1.0 if word.probability is None else word.probability)) for word in words]
    text = " ".join(word.text for word in words)
    return HeardSegment(text, words[0].start, words[-1].end, avg_logprob=sum(logs) / len(logs))

"""A brain that computes without understanding: everything comes out of digests of the input.

Promises the same answer to the same question in every process and version. Vectors of
different texts are as good as unrelated. A recording lasts as long as its header says; some
headers only PyAV can read, and without it the length is a guess from the size.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from voxvec import models as registry
from voxvec.errors import AudioError
from voxvec.local import lengths
from voxvec.local.brain import Heard, HeardSegment, HeardWord
from voxvec.local.exchange import Refusal
from voxvec.models import DimsRange, EmbeddingModel
from voxvec.transcription import audio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from voxvec.local.brain import Recording
    from voxvec.models import TranscriptionModel

__all__ = ["FakeBrain", "Said", "digest"]

_VOCABULARY: Final = (
    *("amber", "birch", "cloud", "delta", "ember", "field", "grove", "harbor", "island", "jetty", "kettle"),
    *("lantern", "meadow", "nectar", "orchard", "pebble", "quarry", "river", "saddle", "timber", "umbrella"),
)
# Of a recording whose header does not say how long it is: as if it were 32 kbit/s.
_BYTES_PER_SECOND: Final = 4000


def digest(data: bytes) -> str:
    """Name of a recording: SHA-256 of its bytes."""
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, slots=True)
class Said:
    """What a test wants to be heard."""

    text: str
    segments: tuple[HeardSegment, ...]
    translation: str | None
    language: str
    code: str


class FakeBrain:
    """Vectors and transcripts out of digests.

    Args:
        own: Embedding models to serve besides those of `voxvec.models`, and their dims.
        tokens: Counts the tokens of a text.

    Attributes:
        said: What is to be heard, by digest of the recording; under None for every other one.
    """

    def __init__(self, own: Mapping[str, int], tokens: Callable[[str], int]) -> None:
        self._tokens = tokens
        self._own = {name: _tiny(name, dims) for name, dims in own.items()}
        self.said: dict[str | None, Said] = {}

    def models(self) -> Mapping[str, EmbeddingModel | TranscriptionModel]:
        """Every model known to voxvec, and its own."""
        return {name: registry.find(name) for name in registry.names()} | self._own

    def embed(self, model: EmbeddingModel, texts: Sequence[str]) -> tuple[npt.NDArray[np.float32], int]:
        """Unit vectors out of the text's digest; a shorter one is the start of the longer."""
        counts = [self._tokens(text) for text in texts]
        lengths.check(model, counts)
        native, dims = model.native_dims or 1, model.dims or 1
        seeds = (f"{model.family}\0{text}".encode("utf-8", "surrogatepass") for text in texts)
        raw = b"".join(hashlib.shake_256(seed).digest(native * 4) for seed in seeds)
        rows = np.frombuffer(raw, "<u4").reshape(len(texts), native)[:, :dims].astype(np.float64) - 2.0**31
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), sum(counts)

    def transcribe(self, model: TranscriptionModel, recording: Recording) -> Heard:
        """What was set to be heard, or words out of the recording's digest."""
        del model
        name, duration = digest(recording.data), _duration(recording)
        said = self.said.get(name) or self.said.get(None) or _murmur(name, duration)
        if recording.translate and said.translation is not None:
            said = Said(said.translation, (), None, "english", "en")
        segments = said.segments or (HeardSegment(said.text, 0.0, duration),)
        words = tuple(word for segment in segments for word in _spread(segment))
        return Heard(said.text, duration, said.language, said.code, segments, words)


def _tiny(name: str, dims: int) -> EmbeddingModel:
    allowed = DimsRange(min=1, max=dims)
    return EmbeddingModel(name=name, dims=dims, allowed_dims=allowed, matryoshka="prefix", unit_length="yes")


def _duration(recording: Recording) -> float:
    container = audio.sniff(recording.data)
    try:
        known = None if container is None else audio.seconds(recording.data, container)
    except AudioError:
        message = "The audio file could not be decoded or its format is not supported."
        raise Refusal(message, param="file") from None
    return len(recording.data) / _BYTES_PER_SECOND if known is None else known


def _murmur(name: str, duration: float) -> Said:
    """Two words a second, eight to a segment, all out of its digest."""
    count = max(1, int(duration * 2))
    picks = hashlib.shake_256(name.encode("ascii")).digest(count)
    words = [_VOCABULARY[pick % len(_VOCABULARY)] for pick in picks]
    lines = [" ".join(words[at : at + 8]).capitalize() + "." for at in range(0, count, 8)]
    each = duration / len(lines)
    segments = (HeardSegment(line, at * each, (at + 1) * each) for at, line in enumerate(lines))
    return Said(" ".join(lines), tuple(segments), None, "english", "en")


def _spread(segment: HeardSegment) -> Iterator[HeardWord]:
    """The words of a segment, each as long as its share of the letters."""
    words = segment.text.split()
    letters = sum(map(len, words))
    start = segment.start
    for word in words:
        end = start + (segment.end - segment.start) * len(word) / letters
        yield HeardWord(word.strip(".,!?;:"), start, end)
        start = end

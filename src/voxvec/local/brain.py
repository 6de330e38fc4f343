"""What the responder asks of whatever does the thinking: vectors for texts, words for a recording.

Pure: values and a protocol. The keyless backend and the fake server are two brains behind
one responder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from voxvec.local.forms import Form
    from voxvec.models import EmbeddingModel, TranscriptionModel

__all__ = ["Brain", "Heard", "HeardSegment", "HeardWord", "Recording"]


@dataclass(frozen=True, slots=True)
class HeardWord:
    """A word and when it was said [s]; ``probability`` in [0, 1] if the brain can tell."""

    text: str
    start: float
    end: float
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class HeardSegment:
    """A stretch of speech and when it was said [s]."""

    text: str
    start: float
    end: float
    speaker: str = "A"
    avg_logprob: float = 0.0


@dataclass(frozen=True, slots=True)
class Heard:
    """What a brain made of a recording.

    Attributes:
        text: All of it.
        duration: Length of the recording [s].
        language: English name of the language that was spoken, in lower case.
        code: Code of that language.
        segments: Stretches of speech, in order.
        words: Single words, in order.
    """

    text: str
    duration: float
    language: str = "english"
    code: str = "en"
    segments: tuple[HeardSegment, ...] = ()
    words: tuple[HeardWord, ...] = ()


@dataclass(frozen=True, slots=True)
class Recording:
    """An upload with the wishes that came with it.

    Attributes:
        data: The file.
        file_name: Its name.
        form: All fields, as sent.
        translate: Whether English text is wanted, whatever is spoken.
    """

    data: bytes
    file_name: str
    form: Form
    translate: bool = False


class Brain(Protocol):
    """Computes what the responder answers. Called from any thread.

    ``embed`` and ``transcribe`` get only requests that the model's facts allow; what else
    a brain cannot do, it refuses by raising `voxvec.local.exchange.Refusal`.
    """

    def models(self) -> Mapping[str, EmbeddingModel | TranscriptionModel]:
        """Every model it answers for, by name."""
        ...

    def embed(self, model: EmbeddingModel, texts: Sequence[str]) -> tuple[npt.NDArray[np.float32], int]:
        """Vectors of ``model.dims``, shape ``(len(texts), dims)``, and how many tokens that took."""
        ...

    def transcribe(self, model: TranscriptionModel, recording: Recording) -> Heard:
        """Text of a recording."""
        ...

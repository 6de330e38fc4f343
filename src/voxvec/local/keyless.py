"""The brain that needs no key: MiniLM for vectors, PocketSphinx for speech.

Loads nothing before the first request that needs it. A request that is wrong is refused as a
server would; what is missing on this machine is no server's answer, so it is raised as
voxvec's own error, with the line to install it.
"""

from __future__ import annotations

import threading
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from voxvec import models as registry
from voxvec.errors import AudioError
from voxvec.local import lengths, safetensors, vocabulary, weights
from voxvec.local.exchange import Refusal
from voxvec.local.minilm import MiniLM
from voxvec.local.recogniser import Recogniser

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from voxvec.local.brain import Heard, Recording
    from voxvec.local.wordpiece import WordPiece
    from voxvec.models import EmbeddingModel, TranscriptionModel

__all__ = ["EMBEDDING_MODEL", "TRANSCRIPTION_MODEL", "KeylessBrain"]

EMBEDDING_MODEL: Final = "all-MiniLM-L6-v2"
TRANSCRIPTION_MODEL: Final = "pocketsphinx-en-us"


class KeylessBrain:
    """Two models, loaded when first needed."""

    def __init__(self) -> None:
        # Matrix multiplication uses every core by itself; two passes at a time would only share them.
        self._lock = threading.Lock()
        self._recogniser = Recogniser()

    def models(self) -> Mapping[str, EmbeddingModel | TranscriptionModel]:
        """The two."""
        return {name: registry.find(name) for name in (EMBEDDING_MODEL, TRANSCRIPTION_MODEL)}

    def embed(self, model: EmbeddingModel, texts: Sequence[str]) -> tuple[npt.NDArray[np.float32], int]:
        """Vectors of length 1.

        Raises:
            ConfigError: The weights are not installed, or damaged.
        """
        with self._lock:
            encoder, spelling = self._encoder
            ids = [spelling.encode(text) for text in texts]
            counts = [len(text) for text in ids]
            lengths.check(model, counts)
            return encoder.embed(ids), sum(counts)

    @cached_property
    def _encoder(self) -> tuple[MiniLM, WordPiece]:
        folder = weights.find()
        file = np.memmap(folder / weights.WEIGHTS, mode="r")
        try:
            return MiniLM(safetensors.parse(file.data)), vocabulary.load()
        except (ValueError, KeyError) as error:
            raise weights.damaged(folder, error) from None

    def transcribe(self, model: TranscriptionModel, recording: Recording) -> Heard:
        """English words with their times.

        Raises:
            MissingExtraError: PocketSphinx is not installed, or PyAV where the format needs it.
        """
        del model
        try:
            return self._recogniser.hear(recording.data)
        except AudioError as error:
            raise Refusal(str(error), param="file", code="invalid_value") from None

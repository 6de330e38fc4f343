"""The brain that needs no key: MiniLM for vectors, PocketSphinx for speech.

Loads nothing before the first request that needs it. What is missing on this machine is
answered as an error that holds the line to install it.
"""

from __future__ import annotations

import threading
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from voxvec import models as registry
from voxvec.errors import AudioError, ConfigError, MissingExtraError
from voxvec.local import safetensors, weights
from voxvec.local.exchange import Refusal
from voxvec.local.minilm import MiniLM
from voxvec.local.recogniser import Recogniser
from voxvec.local.wordpiece import WordPiece

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from voxvec.local.brain import Heard, Recording
    from voxvec.models import EmbeddingModel, TranscriptionModel

__all__ = ["EMBEDDING_MODEL", "TRANSCRIPTION_MODEL", "KeylessBrain"]

EMBEDDING_MODEL: Final = "all-MiniLM-L6-v2"
TRANSCRIPTION_MODEL: Final = "pocketsphinx-en-us"

_NOT_IMPLEMENTED: Final = 501


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
        """Vectors of length 1. The model reads the first ``model.max_tokens`` tokens of a text."""
        with self._lock:
            try:
                encoder, spelling = self._encoder
            except ConfigError as error:
                code = "weights_not_installed"
                raise Refusal(str(error), status=_NOT_IMPLEMENTED, param="model", code=code) from None
            ids = [spelling.encode(text, limit=model.max_tokens) for text in texts]
            return encoder.embed(ids), sum(map(len, ids))

    @cached_property
    def _encoder(self) -> tuple[MiniLM, WordPiece]:
        folder = weights.find()
        file = np.memmap(folder / weights.WEIGHTS, mode="r")
        vocabulary = (folder / weights.VOCABULARY).read_text("utf-8").splitlines()
        try:
            return MiniLM(safetensors.parse(file.data)), WordPiece(vocabulary)
        except (ValueError, KeyError) as error:
            raise ConfigError(
                f"the weights in {folder} are damaged: {error}; delete the folder and run: voxvec local install"
            ) from None

    def transcribe(self, model: TranscriptionModel, recording: Recording) -> Heard:
        """English words with their times."""
        del model
        try:
            return self._recogniser.hear(recording.data)
        except AudioError as error:
            raise Refusal(str(error), param="file", code="invalid_value") from None
        except MissingExtraError as error:
            # Without the extra for other formats it is the upload that cannot be taken, not the model.
            status = 400 if error.extra == "audio" else _NOT_IMPLEMENTED
            raise Refusal(str(error), status=status, code="missing_extra") from None

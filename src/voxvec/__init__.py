"""voxvec: speech to text, text to vectors, vectors to answers, through OpenAI-shaped APIs.

The names below are what one holds in one's hands; each is imported from its room when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from voxvec import local, models
    from voxvec.caches import Cache, MemoryCache, SqliteCache
    from voxvec.embedding.embedder import AsyncEmbedder, Embedder
    from voxvec.embedding.job import EmbeddingPlan
    from voxvec.embedding.vectors import Embeddings
    from voxvec.errors import (
        AudioError,
        AuthError,
        CacheError,
        ConfigError,
        InputError,
        JobError,
        MissingExtraError,
        NetworkError,
        QuotaError,
        RateLimitError,
        RefusedError,
        ResponseError,
        ServerError,
        ServiceError,
        ServiceTimeoutError,
        VoxvecError,
        VoxvecWarning,
    )
    from voxvec.models import EmbeddingModel, TranscriptionModel
    from voxvec.policy import Budget, Pace, Retry
    from voxvec.similarity.index import Hit, Index
    from voxvec.similarity.measures import cosine, dot, euclidean, normalize, truncate
    from voxvec.similarity.search import top_k
    from voxvec.transcription.job import TranscriptionPlan
    from voxvec.transcription.transcriber import AsyncTranscriber, Transcriber
    from voxvec.transcription.transcript import Segment, Transcript, Word

__all__ = [
    "AsyncEmbedder",
    "AsyncTranscriber",
    "AudioError",
    "AuthError",
    "Budget",
    "Cache",
    "CacheError",
    "ConfigError",
    "Embedder",
    "EmbeddingModel",
    "EmbeddingPlan",
    "Embeddings",
    "Hit",
    "Index",
    "InputError",
    "JobError",
    "MemoryCache",
    "MissingExtraError",
    "NetworkError",
    "Pace",
    "QuotaError",
    "RateLimitError",
    "RefusedError",
    "ResponseError",
    "Retry",
    "Segment",
    "ServerError",
    "ServiceError",
    "ServiceTimeoutError",
    "SqliteCache",
    "Transcriber",
    "Transcript",
    "TranscriptionModel",
    "TranscriptionPlan",
    "VoxvecError",
    "VoxvecWarning",
    "Word",
    "cosine",
    "dot",
    "euclidean",
    "local",
    "models",
    "normalize",
    "top_k",
    "truncate",
]

_ROOMS = {
    "voxvec.caches": ("Cache", "MemoryCache", "SqliteCache"),
    "voxvec.embedding.embedder": ("AsyncEmbedder", "Embedder"),
    "voxvec.embedding.job": ("EmbeddingPlan",),
    "voxvec.embedding.vectors": ("Embeddings",),
    "voxvec.errors": tuple(name for name in __all__ if name.endswith(("Error", "Warning"))),
    "voxvec.models": ("EmbeddingModel", "TranscriptionModel"),
    "voxvec.policy": ("Budget", "Pace", "Retry"),
    "voxvec.similarity.index": ("Hit", "Index"),
    "voxvec.similarity.measures": ("cosine", "dot", "euclidean", "normalize", "truncate"),
    "voxvec.similarity.search": ("top_k",),
    "voxvec.transcription.job": ("TranscriptionPlan",),
    "voxvec.transcription.transcriber": ("AsyncTranscriber", "Transcriber"),
    "voxvec.transcription.transcript": ("Segment", "Transcript", "Word"),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in {"local", "models"}:
        return import_module(f"voxvec.{name}")
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_ROOM_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Text → vectors: clients that batch, cache, retry, check and account; see `voxvec.embedding.embedder`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from voxvec.embedding.embedder import AsyncEmbedder, Embedder
    from voxvec.embedding.job import EmbeddingPlan
    from voxvec.embedding.vectors import Embeddings, Usage

__all__ = ["AsyncEmbedder", "Embedder", "EmbeddingPlan", "Embeddings", "Usage"]

_ROOM_OF = {
    "AsyncEmbedder": "embedder",
    "Embedder": "embedder",
    "EmbeddingPlan": "job",
    "Embeddings": "vectors",
    "Usage": "vectors",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOM_OF[name]}"), name)

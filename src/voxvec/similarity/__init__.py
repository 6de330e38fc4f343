"""Vectors → neighbours: how alike vectors are, and which are nearest.

Knows arrays only, never a client. Every function takes anything that NumPy can read
as one vector (1-D) or as rows of vectors (2-D), results of `Embedder.embed` included,
and computes on 32-bit floats; such an array is not copied.

Zero vectors and NaN, everywhere in this package: a zero vector is similar to nothing
(its cosine with anything is 0, never NaN) and stays zero when normalised; NaN or an
infinity in any vector raises `InputError`, which names the rows.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from voxvec.similarity.index import Hit, Index
    from voxvec.similarity.measures import cosine, dot, euclidean, normalize, truncate
    from voxvec.similarity.search import top_k

__all__ = ["Hit", "Index", "cosine", "dot", "euclidean", "normalize", "top_k", "truncate"]

_HOMES = {"Hit": "index", "Index": "index", "top_k": "search"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'measures')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

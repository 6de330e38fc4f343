"""Where answers are kept, so that none is bought twice.

A cache is any object with the three methods of `Cache`, and perhaps the two of `Leasing`. Two are built in:
`MemoryCache` for one process, `SqliteCache` for one machine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from voxvec.caches.contract import Cache, CacheStats, Leasing
    from voxvec.caches.memory import MemoryCache
    from voxvec.caches.opening import open_cache
    from voxvec.caches.sqlite import SqliteCache

__all__ = ["Cache", "CacheStats", "Leasing", "MemoryCache", "SqliteCache", "open_cache"]

_HOME = {
    "Cache": "contract",
    "CacheStats": "contract",
    "Leasing": "contract",
    "MemoryCache": "memory",
    "SqliteCache": "sqlite",
    "open_cache": "opening",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__

"""From what a user writes as ``cache=`` to a cache."""

from __future__ import annotations

import os

from voxvec.caches.contract import Cache
from voxvec.errors import ConfigError

__all__ = ["open_cache"]


def open_cache(cache: Cache | str | os.PathLike[str] | None) -> Cache | None:
    """Make a cache of what was given.

    Args:
        cache: A path, for an `SqliteCache` there; an object with the methods of `Cache`, which is
            returned as it is; or None for no cache.

    Returns:
        The cache. Nothing on disk is touched before its first use.

    Raises:
        ConfigError: It is none of these, or a URL, for which there is no cache yet.
    """
    if cache is None or (isinstance(cache, Cache) and not isinstance(cache, type)):
        return cache
    if not isinstance(cache, (str, os.PathLike)):
        raise ConfigError(
            f"cache must be a path, or an object with get_many, set_many and discard, not {type(cache).__name__}"
        )
    return _at(os.fspath(cache))


def _at(path: str) -> Cache:
    scheme, is_url, _ = path.partition("://")
    if is_url and scheme in {"redis", "rediss", "unix"}:
        raise ConfigError("Redis caches are not available yet in this version; give the path of a file instead")
    if is_url:
        raise ConfigError(f"there is no cache for {scheme}:// URLs; give the path of a file instead")
    from voxvec.caches.sqlite import SqliteCache  # noqa: PLC0415 -- sqlite3 takes 8 ms, most callers give none

    return SqliteCache(path)

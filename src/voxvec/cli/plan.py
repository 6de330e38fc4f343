"""``voxvec plan``: what embedding or transcribing files would take, without asking any server."""

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voxvec.cli import failures, passages, screen
from voxvec.cli.backend import Backend
from voxvec.cli.options import AsJson, EmbeddingName, NoCache, SkipBlank, TranscriptionName
from voxvec.errors import VoxvecError

if TYPE_CHECKING:
    from voxvec.embedding.job import EmbeddingPlan
    from voxvec.transcription.job import TranscriptionPlan

__all__ = ["plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """What one file would take, for a table and for machines."""

    cells: tuple[str, ...]
    facts: dict[str, screen.Json]
    requests: int
    cost: Decimal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """What to plan with."""

    backend: Backend
    embedding_model: str | None
    transcription_model: str | None
    skip_blank: bool


def plan(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE", show_default=False, help="Text files or recordings; - is stdin.")
    ],
    *,
    embedding_model: EmbeddingName = None,
    transcription_model: TranscriptionName = None,
    skip_blank: SkipBlank = False,
    no_cache: NoCache = False,
    as_json: AsJson = False,
) -> None:
    """Tell requests and cost beforehand; sends nothing."""
    wish = _Wish(
        backend=Backend(keep=not no_cache, sends=False),
        embedding_model=embedding_model,
        transcription_model=transcription_model,
        skip_blank=skip_blank,
    )
    rows, failed = _rows(files, wish)
    requests = sum(row.requests for row in rows)
    costs = [row.cost for row in rows if row.cost is not None]
    cost = sum(costs, Decimal(0)) if len(costs) == len(rows) else None
    if as_json:
        listed: list[screen.Json] = [row.facts for row in rows]
        total = {"requests": requests, "cost": _digits(cost)}
        screen.show_json({"files": listed, "failed": failures.as_json(failed), **total})
    elif rows:
        screen.show(_table(rows, requests, cost))
    if failed:
        raise typer.Exit(1)


def _table(rows: list[_Row], requests: int, cost: Decimal | None) -> str:
    header = ("file", "model", "size", "requests", "cached", "cost")
    total = ("total", "", "", f"{requests:,}", "", screen.money(cost))
    return screen.columns([header, *(row.cells for row in rows), *([total] if len(rows) > 1 else [])])


def _rows(files: list[Path], wish: _Wish) -> tuple[list[_Row], dict[str, VoxvecError]]:
    """What each file would take, and what its verb would refuse."""
    rows, failed = list[_Row](), dict[str, VoxvecError]()
    for file in files:
        try:
            rows.append(_row(file, wish))
        except failures.HOPELESS:
            raise
        except VoxvecError as error:
            failed[str(file)] = error
            screen.say(failures.about(str(file), error))
    return rows, failed


def _row(file: Path, wish: _Wish) -> _Row:
    data = passages.read(file)
    text = passages.as_text(data, str(file))
    if text is None:
        with wish.backend.transcriber(wish.transcription_model) as transcriber:
            return _recording(str(file), transcriber.plan(passages.recording(file, data)))
    lines = passages.lines_of(text, str(file), skip_blank=wish.skip_blank)
    with wish.backend.embedder(wish.embedding_model) as embedder:
        found = embedder.plan([line.text for line in lines])
    if found.refused:
        raise passages.refusal(lines, found.refused)
    return _texts(str(file), embedder.model.name, found)


def _texts(file: str, model: str, found: "EmbeddingPlan") -> _Row:
    exactly = "" if found.exact else "at most "
    size = f"{screen.count(found.texts, 'text')}, {exactly}{screen.count(found.tokens, 'token')}"
    facts: dict[str, screen.Json] = {
        "file": file,
        "kind": "text",
        "model": model,
        "texts": found.texts,
        "distinct": found.distinct,
        "cached": found.cached,
        "requests": found.requests,
        "tokens": found.tokens,
        "exact": found.exact,
        "cost": _digits(found.cost),
        "batch_cost": _digits(found.batch_cost),
    }
    cells = (file, model, size, f"{found.requests:,}", f"{found.cached:,}", screen.money(found.cost))
    return _Row(cells=cells, facts=facts, requests=found.requests, cost=found.cost)


def _recording(file: str, found: "TranscriptionPlan") -> _Row:
    length = "length unknown" if found.seconds is None else f"{found.seconds:,.1f} s"
    facts: dict[str, screen.Json] = {
        "file": file,
        "kind": "recording",
        "model": found.model,
        "container": found.container,
        "bytes": found.bytes,
        "seconds": found.seconds,
        "cached": int(found.cached),
        "requests": found.requests,
        "cost": _digits(found.cost),
    }
    size = f"{length}, {found.bytes:,} bytes of {found.container}"
    cells = (file, found.model, size, f"{found.requests:,}", str(int(found.cached)), screen.money(found.cost))
    return _Row(cells=cells, facts=facts, requests=found.requests, cost=found.cost)


def _digits(cost: Decimal | None) -> str | None:
    return None if cost is None else f"{cost.normalize():f}"

"""``voxvec plan``: what embedding or transcribing files would take, without asking any server."""

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from voxvec.cli import passages, screen
from voxvec.cli.backend import Backend
from voxvec.cli.options import AsJson, EmbeddingName, Files, NoCache, TranscriptionName

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


def plan(
    files: Files,
    *,
    embedding_model: EmbeddingName = None,
    transcription_model: TranscriptionName = None,
    no_cache: NoCache = False,
    as_json: AsJson = False,
) -> None:
    """Tell requests and cost beforehand; sends nothing."""
    backend = Backend(keep=not no_cache, sends=False)
    rows = [_row(file, backend, embedding_model, transcription_model) for file in files]
    requests = sum(row.requests for row in rows)
    cost: Decimal | None = Decimal(0)
    for row in rows:
        cost = None if cost is None or row.cost is None else cost + row.cost
    if as_json:
        listed: list[screen.Json] = [row.facts for row in rows]
        screen.show_json({"files": listed, "requests": requests, "cost": _digits(cost)})
        return
    total = ("total", "", "", f"{requests:,}", "", screen.money(cost))
    header = ("file", "model", "size", "requests", "cached", "cost")
    screen.show(screen.columns([header, *(row.cells for row in rows), *([total] if len(rows) > 1 else [])]))


def _row(file: Path, backend: Backend, embedding_model: str | None, transcription_model: str | None) -> _Row:
    data = passages.read(file)
    text = passages.as_text(data, str(file))
    if text is None:
        with backend.transcriber(transcription_model) as transcriber:
            return _recording(str(file), transcriber.plan(file))
    lines = passages.lines_of(text, str(file), blank=True)
    with backend.embedder(embedding_model) as embedder:
        found = embedder.plan([line.text for line in lines])
    for at, reason in found.refused.items():
        screen.say(f"{lines[at].place}: {reason}")
    return _texts(str(file), embedder.model.name, found)


def _texts(file: str, model: str, found: "EmbeddingPlan") -> _Row:
    exactly = "" if found.exact else "at most "
    size = f"{found.texts:,} texts, {exactly}{found.tokens:,} tokens"
    facts: dict[str, screen.Json] = {
        "file": file,
        "kind": "text",
        "model": model,
        "texts": found.texts,
        "distinct": found.distinct,
        "cached": found.cached,
        "refused": len(found.refused),
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

"""``voxvec search``: a question in, the nearest lines and moments out."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

import voxvec as vv
from voxvec.cli import passages, screen
from voxvec.cli.backend import Backend
from voxvec.cli.bill import Bill
from voxvec.cli.options import AsJson, EmbeddingName, NoCache, TranscriptionName
from voxvec.errors import InputError

__all__ = ["SearchCommand", "search"]


class SearchCommand(TyperCommand):
    """Shows where the files go: behind ``--in``."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """What the usage line says after the name of the command."""
        del ctx
        return ["QUERY", "--in", "FILE…", "[OPTIONS]"]


def search(
    query: Annotated[str, typer.Argument(help="What to look for, in your own words.", show_default=False)],
    *,
    within: Annotated[
        list[Path],
        typer.Option(
            "--in", metavar="FILE…", show_default=False, help="Text files or recordings, one or more; - is stdin."
        ),
    ],
    # An option takes one value; the others come as arguments, which the help need not tell.
    more: Annotated[list[Path] | None, typer.Argument(hidden=True)] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many hits.")] = 5,
    embedding_model: EmbeddingName = None,
    transcription_model: TranscriptionName = None,
    no_cache: NoCache = False,
    as_json: AsJson = False,
) -> None:
    """Find lines and moments by their meaning."""
    passages.check(query)
    backend = Backend(keep=not no_cache)
    with backend.embedder(embedding_model) as client:
        # Asked first: if this cannot be embedded, no recording need be paid for.
        asked = passages.embed(client, [passages.Passage(query, "the question")], "query")
        found, bill = _gather([*within, *(more or [])], backend, transcription_model)
        with screen.progress("texts", len(found)) as tell:
            vectors = passages.embed(client, found, "document", tell)
    bill += Bill.of_vectors(asked) + Bill.of_vectors(vectors)
    hits = vv.Index(vectors, items=found).search(asked[0], k)
    if as_json:
        listed: list[screen.Json] = [{"score": hit.score, **hit.item.as_json()} for hit in hits]
        screen.show_json({"query": query, "hits": listed, **bill.as_json()})
        return
    screen.show(screen.columns([(hit.item.place, f"{hit.score:.2f}", screen.visible(hit.item.text)) for hit in hits]))
    screen.say(str(bill))


def _gather(
    files: list[Path], backend: Backend, transcription_model: str | None
) -> tuple[list[passages.Passage], Bill]:
    """Everything that can be found, and what hearing it took."""
    read = [(file, passages.read(file)) for file in files]
    texts = [(file, data, passages.as_text(data, str(file))) for file, data in read]
    found: list[passages.Passage] = []
    bill = Bill()
    for file, data, text in texts:
        name = str(file)
        if text is not None:
            found += passages.lines_of(text, name, skip_blank=True)
            continue
        with backend.transcriber(transcription_model) as client:
            transcript = client.transcribe(passages.recording(file, data))
        for warning in transcript.warnings:
            screen.say(f"{name}: {warning}")
        bill += Bill.of_transcript(transcript)
        found += passages.segments_of(transcript.segments, name)
    if not found:
        raise InputError(f"there is no text in {', '.join(map(str, files))}, so nothing can be found")
    return found, bill

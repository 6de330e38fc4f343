"""``voxvec embed``: a text per line in, a vector per text out."""

import json
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voxvec.cli import files, passages, screen
from voxvec.cli.backend import Backend
from voxvec.cli.bill import Bill
from voxvec.cli.options import AsJson, NoCache, SkipBlank
from voxvec.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from voxvec.embedding.vectors import Embeddings

__all__ = ["embed"]

_SUFFIXES = {".npz", ".parquet", ".jsonl"}


def embed(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Texts in UTF-8, one per line; - is stdin.", show_default=False)
    ],
    *,
    model: Annotated[
        str | None,
        typer.Option(
            show_default=False, help="By default text-embedding-3-small. Without OPENAI_API_KEY it is all-MiniLM-L6-v2."
        ),
    ] = None,
    dims: Annotated[
        int | None, typer.Option(min=1, show_default=False, help="Length of the vectors; by default the model's own.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            show_default=False,
            help="File that ends in .npz, .parquet (needs the extra [arrow]) or .jsonl; by default JSON lines on "
            "stdout.",
        ),
    ] = None,
    skip_blank: SkipBlank = False,
    no_cache: NoCache = False,
    as_json: AsJson = False,
) -> None:
    """Turn the lines of a text file into vectors."""
    _check(file, output)
    lines = _lines(file, skip_blank=skip_blank)
    client = Backend(keep=not no_cache).embedder(model, dims=dims)
    with client, screen.progress("texts", len(lines)) as tell:
        vectors = passages.embed(client, lines, progress=tell)
    texts = [line.text for line in lines]
    if output is not None:
        _write(texts, vectors, output)
    bill = Bill.of_vectors(vectors)
    if as_json:
        screen.show_json({**_as_json(vectors, output), **bill.as_json()})
        return
    if output is None:
        for line in _json_lines(texts, vectors):
            screen.show(line)
    screen.say(f"{screen.count(len(vectors), 'vector')} of {vectors.dims} dims by {vectors.model}; {bill}")


def _check(file: Path, output: Path | None) -> None:
    if output is None:
        return
    if output.suffix.lower() not in _SUFFIXES:
        raise typer.BadParameter(f"end the name of {output.name} in .npz, .parquet or .jsonl", param_hint="--output")
    if output.resolve() == file.resolve():
        raise typer.BadParameter(f"{output} holds the texts themselves", param_hint="--output")
    files.check(output)
    if output.suffix.lower() == ".parquet" and find_spec("pyarrow") is None:
        raise MissingExtraError("writing .parquet", extra="arrow")


def _lines(file: Path, *, skip_blank: bool) -> list[passages.Passage]:
    text = passages.as_text(passages.read(file), str(file))
    if text is None:
        raise InputError(f"{file} is a recording; transcribe it first, or search it. Nothing was sent")
    return passages.lines_of(text, str(file), skip_blank=skip_blank)


def _write(texts: "Sequence[str]", vectors: "Embeddings", output: Path) -> None:
    with files.replacing(output) as draft:
        match output.suffix.lower():
            case ".npz":
                vectors.save(draft)
            case ".parquet":
                _write_parquet(texts, vectors, draft)
            case _:
                with draft.open("w", encoding="utf-8", newline="\n") as lines:
                    lines.writelines(_json_lines(texts, vectors))


def _write_parquet(texts: "Sequence[str]", vectors: "Embeddings", path: Path) -> None:
    # An optional package, and one without type information.
    pa, pq = import_module("pyarrow"), import_module("pyarrow.parquet")
    rows = pa.FixedSizeListArray.from_arrays(pa.array(vectors.array.reshape(-1)), vectors.dims)
    table = pa.table({"text": pa.array(texts, pa.string()), "vector": rows})
    pq.write_table(table.replace_schema_metadata({"model": vectors.model}), path)


def _json_lines(texts: "Sequence[str]", vectors: "Embeddings") -> "Iterator[str]":
    for text, vector in zip(texts, vectors, strict=True):
        yield json.dumps({"text": text, "vector": vector.tolist()}, ensure_ascii=False) + "\n"


def _as_json(vectors: "Embeddings", output: Path | None) -> dict[str, screen.Json]:
    summary: dict[str, screen.Json] = {"model": vectors.model, "texts": len(vectors), "dims": vectors.dims}
    if output is None:
        return {**summary, "vectors": vectors.tolist()}
    return {**summary, "output": str(output)}

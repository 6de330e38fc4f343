"""Write the reference pages that are made of facts: ``python -m tests.make_reference``; the test suite compares."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from voxvec import models
from voxvec.models import EmbeddingModel, TranscriptionModel

REFERENCE = Path(__file__).parent.parent / "docs" / "reference"
VERBS = ["demo", "transcribe", "translate", "embed", "search", "models", "plan"]
VERBS += ["cache", "cache stats", "cache prune", "cache clear", "local", "local install", "doctor"]


def known(value: object) -> str:
    if value is None:
        return "?"
    return f"{value:,}" if isinstance(value, int) else str(value)


def yes(value: object) -> str:
    return "?" if value is None else "yes" if value else "no"


def money(value: object) -> str:
    return "?" if value is None else f"${value}"


def embedding_row(model: EmbeddingModel) -> list[str]:
    return [
        f"`{model.name}`",
        known(model.dims),
        model.dims_hint(),
        model.matryoshka.replace("_", " "),
        known(model.max_tokens),
        known(model.max_items),
        money(model.price),
        known(model.shutdown) if model.shutdown else "",
    ]


def transcription_row(model: TranscriptionModel) -> list[str]:
    price = money(model.price_per_minute) if model.price_per_minute is not None else ""
    if model.output_price is not None and not price:
        price = f"{money(model.input_price)} in, {money(model.output_price)} out per million tokens"
    return [
        f"`{model.name}`",
        ", ".join(model.formats),
        yes(model.segment_times),
        yes(model.word_times),
        yes(model.speakers),
        yes(model.translates),
        known(model.max_bytes),
        known(model.max_seconds),
        price or "?",
        known(model.shutdown) if model.shutdown else "",
    ]


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def models_page() -> str:
    every = [models.find(name) for name in models.names()]
    embedding = [embedding_row(model) for model in every if isinstance(model, EmbeddingModel)]
    transcription = [transcription_row(model) for model in every if isinstance(model, TranscriptionModel)]
    by_name = ["model", "dims", "allowed dims", "Matryoshka", "tokens per text", "texts per request", "price"]
    abilities = ["formats", "segment times", "word times", "speakers", "translates", "bytes", "seconds", "price"]
    return f"""# Models

What `voxvec.models` knows, made from `models.toml` by `python -m tests.make_reference`. `voxvec models NAME` shows
every fact of a model with its source and date. A question mark means that nobody has found out; it is never taken for a
limit.

## Embedding

Prices are in US dollars per million tokens.

{table([*by_name, "shut down"], embedding)}

## Transcription

Prices are in US dollars per minute where nothing else is said.

{table(["model", *abilities, "shut down"], transcription)}
"""


def help_of(*words: str) -> str:
    environment = {**os.environ, "COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "voxvec", *words, "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout  # noqa: S603 -- our own
    return re.sub(r"[ \t]+$", "", shown.strip(), flags=re.MULTILINE)


def cli_page() -> str:
    sections = "\n\n".join(f"## voxvec {verb}\n\n```text\n{help_of(*verb.split())}\n```" for verb in VERBS)
    return f"""# Command line

Made by `python -m tests.make_reference`. `pip install 'voxvec[cli]'` brings the command.

Results go to standard output, everything else to standard error. The exit code is 0 for success, 1 for an error that a
line on standard error explains, 2 for wrong usage, 130 after Ctrl-C.

With `--json` such an error is an object on standard output: `{{"error": {{"type": …, "message": …, "billed": …}}}}`.
Where several files are given, `failed` lists those that failed.

```text
{help_of()}
```

{sections}
"""


PAGES = {"models.md": models_page, "cli.md": cli_page}

if __name__ == "__main__":
    for name, make in PAGES.items():
        REFERENCE.joinpath(name).write_text(make(), "utf-8")

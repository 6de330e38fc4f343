"""Options that several verbs have, so that each means the same everywhere."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["AsJson", "EmbeddingName", "Files", "NoCache", "TranscriptionName"]

_WITHOUT_KEY = "Without OPENAI_API_KEY"

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Neither look into the cache file nor add to it.")]
Files = Annotated[list[Path], typer.Argument(metavar="FILE…", show_default=False)]
EmbeddingName = Annotated[
    str | None,
    typer.Option(
        "--embedding-model",
        show_default=False,
        help=f"By default text-embedding-3-small. {_WITHOUT_KEY} it is all-MiniLM-L6-v2.",
    ),
]
TranscriptionName = Annotated[
    str | None,
    typer.Option(
        "--transcription-model",
        show_default=False,
        help=f"By default gpt-transcribe. {_WITHOUT_KEY} it is pocketsphinx-en-us.",
    ),
]

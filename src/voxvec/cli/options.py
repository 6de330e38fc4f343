"""Options that several verbs have, so that each means the same everywhere."""

from typing import Annotated

import typer

__all__ = ["AsJson", "EmbeddingName", "NoCache", "SkipBlank", "TranscriptionName", "wants_json"]

_WITHOUT_KEY = "Without OPENAI_API_KEY"
_JSON = "voxvec.json"


def _note(ctx: typer.Context, value: bool) -> bool:  # noqa: FBT001 -- so typer calls it
    ctx.meta[_JSON] = value
    return value


def wants_json(ctx: typer.Context) -> bool:
    """Whether the verb that runs, or has just failed, was given ``--json``."""
    return bool(ctx.meta.get(_JSON))


AsJson = Annotated[
    bool,
    typer.Option("--json", callback=_note, help="Print one JSON object, an error too."),
]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Neither look into the cache file nor add to it.")]
SkipBlank = Annotated[
    bool, typer.Option("--skip-blank", help="Leave out lines with nothing on them, which are refused otherwise.")
]
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

"""The command line: ``voxvec VERB …``.

Results, and nothing else, go to stdout; every verb takes ``--json``, and then tells of an error there too.
Remarks, progress and errors go to stderr. Exit codes: 0 done; 1 it could not be done, in one line; 2 the command
makes no sense; 130 stopped by Ctrl-C; 141 the reader of its output went away.

It imports neither openai nor NumPy before a verb needs them.
"""

from __future__ import annotations

from typing import Annotated

import typer

from voxvec.cli import demo, doctor, embed, facts, plan, screen, search, transcribe, upkeep
from voxvec.cli.manners import PoliteGroup

__all__ = ["app"]

app = typer.Typer(
    name="voxvec",
    cls=PoliteGroup,
    help="Speech to text, text to vectors, vectors to answers, through OpenAI-shaped APIs or without a key.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 -- so typer calls it
    if wanted:
        screen.show(f"voxvec {doctor.installed('voxvec') or '(not installed as a package)'}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    del version


app.command()(demo.demo)
app.command()(transcribe.transcribe)
app.command()(transcribe.translate)
app.command()(embed.embed)
app.command(cls=search.SearchCommand)(search.search)
app.command()(plan.plan)
app.command()(facts.models)
app.command()(doctor.doctor)
app.add_typer(upkeep.cache_app, name="cache")
app.add_typer(upkeep.local_app, name="local")

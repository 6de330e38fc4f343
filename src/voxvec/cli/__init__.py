"""The command line: ``voxvec VERB …``.

Results, and nothing else, go to stdout; every verb takes ``--json``. Remarks, progress and errors go to stderr.
Exit codes: 0 done; 1 it could not be done, in one line; 2 the command makes no sense; 130 stopped by Ctrl-C;
141 the reader of its output went away.

It imports neither openai nor NumPy before a verb needs them.
"""

from __future__ import annotations

import typer

from voxvec.cli import demo, doctor, embed, facts, plan, search, transcribe, upkeep
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
)
app.command()(demo.demo)
app.command()(transcribe.transcribe)
app.command()(transcribe.translate)
app.command()(embed.embed)
app.command()(search.search)
app.command()(plan.plan)
app.command()(facts.models)
app.command()(doctor.doctor)
app.add_typer(upkeep.cache_app, name="cache")
app.add_typer(upkeep.local_app, name="local")

"""How the command line fails: one line on stderr and a code, never a traceback for what a user can mend."""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import typer
from typer.core import TyperGroup

from voxvec.cli import screen
from voxvec.cli.options import wants_json
from voxvec.errors import CacheError, VoxvecError, VoxvecWarning

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["PoliteGroup"]

_FAILED, _INTERRUPTED, _UNREAD = 1, 130, 141


class PoliteGroup(TyperGroup):
    """Runs a verb, and turns what it raises into an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb that was named."""
        try:
            with _warnings_as_remarks():
                result = super().invoke(ctx)
                sys.stdout.flush()
        except BrokenPipeError:
            _forget_stdout()
            raise typer.Exit(_UNREAD) from None
        except (VoxvecError, OSError) as error:
            _report(error, ctx)
        except KeyboardInterrupt:
            screen.say("stopped; what was bought before is in the cache, if there is one")
            raise typer.Exit(_INTERRUPTED) from None
        else:
            return result
        raise typer.Exit(_FAILED)


def _report(error: VoxvecError | OSError, ctx: typer.Context) -> None:
    """One line for people; for machines an object as well, where a result would have been."""
    message = _message(error, ctx)
    screen.say(message)
    if not wants_json(ctx):
        return
    # What else fails, fails between a purchase and its result, or before either.
    billed = error.billed if isinstance(error, VoxvecError) else "maybe"
    try:
        screen.show_json({"error": {"type": type(error).__name__, "message": message, "billed": billed}})
        sys.stdout.flush()
    except OSError:
        _forget_stdout()


def _message(error: VoxvecError | OSError, ctx: typer.Context) -> str:
    if isinstance(error, CacheError):
        without = "" if ctx.invoked_subcommand == "cache" else "--no-cache, or "
        return f"{error}; use {without}another folder by VOXVEC_CACHE_DIR"
    if isinstance(error, VoxvecError):
        return ": ".join([*getattr(error, "__notes__", ()), str(error)])
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)


@contextmanager
def _warnings_as_remarks() -> Generator[None]:
    """Show each of our warnings as a line of its own, and those of others as Python does."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", VoxvecWarning)
        usual = warnings.showwarning

        def show(  # noqa: PLR0917 -- Python's signature
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, VoxvecWarning):
                screen.say(str(message))
            else:
                usual(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


def _forget_stdout() -> None:
    # Python flushes stdout once more when it ends, and would complain about the same pipe again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

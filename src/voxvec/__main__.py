"""What runs as ``voxvec`` and as ``python -m voxvec``.

Knows no verb. Without the extra ``[cli]`` it says how to get it, instead of failing on an import.
"""

from __future__ import annotations

import io
import os
import sys
from importlib.util import find_spec
from pathlib import Path

__all__ = ["main"]


def main() -> int:
    """Run the command line on the arguments of this process.

    Returns:
        2 if the extra is missing, 1 if nobody could read a result; otherwise it ends by `SystemExit`, with the codes
        that `voxvec.cli` names.
    """
    if sys.stderr is None:
        # It was closed; the next file to be opened would take its number, and get what libraries write there.
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 -- open as long as the process lives
    if sys.stdout is None:
        sys.stderr.write("voxvec: stdout is closed, so there is nowhere for a result to go; nothing was sent\n")
        return 1
    if find_spec("typer") is None or find_spec("rich") is None:
        sys.stderr.write("voxvec: the command line needs two more packages: pip install 'voxvec[cli]'\n")
        return 2
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Transcripts are in any script, file names in any encoding: neither may stop a run at its last step.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        from voxvec.cli import app  # noqa: PLC0415 -- it imports what may be missing

        app(prog_name="voxvec")
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

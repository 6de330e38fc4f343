"""Files that a command writes: checked before anything is bought, written whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from voxvec.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

__all__ = ["check", "replacing"]


def check(target: Path) -> None:
    """See whether a file can be written.

    Raises:
        ConfigError: It cannot; the message says why.
    """
    folder = target.parent
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    except OSError as error:
        raise ConfigError(f"{target} cannot be written: {error.strerror}; nothing was sent") from None
    if not stat.S_ISREG(mode):
        raise ConfigError(f"{target} is no regular file, so it is not written to; nothing was sent")
    if not folder.is_dir():
        raise ConfigError(f"the folder {folder} does not exist; make it first. Nothing was sent")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"nothing may be written in {folder}; nothing was sent")


@contextmanager
def replacing(target: Path) -> Generator[Path]:
    """Give a new name beside the file, and put what was written there in its place if all went well.

    Raises:
        OSError: Something could not be written; it names the file that was asked for.
    """
    final = target.resolve()
    # The ending says what to write; the rest is left out, or it might be too long with what is put before it.
    draft = final.with_name(f".{secrets.token_hex(8)}{final.suffix.lower()}")
    try:
        yield draft
        with draft.open("rb+") as written:
            os.fsync(written.fileno())
        if final.exists():
            shutil.copymode(final, draft)
        draft.replace(final)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(target)) from None
    finally:
        draft.unlink(missing_ok=True)

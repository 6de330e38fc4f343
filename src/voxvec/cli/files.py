"""Files that a command writes: checked before anything is bought, written whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
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
    if target.exists() and not target.is_file():
        raise ConfigError(f"{target} is no regular file, so it is not written to; nothing was sent")
    if not folder.is_dir():
        raise ConfigError(f"the folder {folder} does not exist; make it first. Nothing was sent")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"nothing may be written in {folder}; nothing was sent")


@contextmanager
def replacing(target: Path) -> Generator[Path]:
    """Give a new name beside the file, and put what was written there in its place if all went well."""
    target = target.resolve()
    draft = target.with_name(f".{secrets.token_hex(8)}.{target.name}")  # the ending says what to write
    try:
        yield draft
        if target.exists():
            shutil.copymode(target, draft)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)

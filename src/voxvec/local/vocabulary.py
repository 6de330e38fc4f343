"""The installed vocabulary of all-MiniLM-L6-v2, read once: what the model reads by, its clients can count by.

It is the uncased one that BERT was published with, so it counts for every model that kept it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

from voxvec import tokens
from voxvec.local import weights
from voxvec.local.wordpiece import WordPiece

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["lend", "load"]

_NAME: Final = "wordpiece"


def load() -> WordPiece:
    """The tokenizer.

    Raises:
        ConfigError: The weights are not installed, or damaged.
    """
    return _read(weights.find())


def lend() -> None:
    """Make it the process's tokenizer of that name, read when first wanted."""
    tokens.provide(_NAME, load)


@cache
def _read(folder: Path) -> WordPiece:
    try:
        return WordPiece((folder / weights.VOCABULARY).read_text("utf-8").splitlines())
    except (OSError, ValueError, KeyError) as error:
        raise weights.damaged(folder, error) from None

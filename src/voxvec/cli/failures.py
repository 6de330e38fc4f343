"""What failed for one file of several, and what need not be tried for the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from voxvec.errors import AuthError, CacheError, ConfigError, MissingExtraError, QuotaError, VoxvecError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from voxvec.cli.screen import Json

__all__ = ["HOPELESS", "about", "as_json"]

HOPELESS: Final = (AuthError, CacheError, ConfigError, MissingExtraError, QuotaError)
"""What goes wrong for one file in these ways goes wrong for all."""


def about(file: str, error: VoxvecError) -> str:
    """The error with the file it is about, named once."""
    message = str(error)
    return message if message.startswith((file, repr(file))) else f"{file}: {message}"


def as_json(failed: Mapping[str, VoxvecError]) -> list[Json]:
    """Files that failed, each with the reason, for machines."""
    return [{"file": file, "error": str(error), "billed": error.billed} for file, error in failed.items()]

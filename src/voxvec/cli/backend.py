"""Who answers a command: the server that OPENAI_API_KEY is for, or the keyless backend; and which cache is used.

A model that was named and needs a key is never replaced by another.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import voxvec as vv
from voxvec.cli import screen
from voxvec.errors import ConfigError
from voxvec.local import weights

if TYPE_CHECKING:
    from pathlib import Path

    import openai

__all__ = ["Backend", "cache_path", "has_key", "host", "why_keyless"]

_EMBEDDING: Final = "text-embedding-3-small"
_TRANSCRIPTION: Final = "gpt-transcribe"
_TRANSLATION: Final = "whisper-1"
_KEYLESS_EMBEDDING: Final = "all-MiniLM-L6-v2"
_KEYLESS_TRANSCRIPTION: Final = "pocketsphinx-en-us"
_KEYLESS: Final = {_KEYLESS_EMBEDDING, _KEYLESS_TRANSCRIPTION}


def has_key() -> bool:
    """Whether there is a key in the environment."""
    return bool(os.environ.get("OPENAI_API_KEY", "").strip())


def _insecure() -> bool:
    """Whether an unencrypted address is wanted: said where the address is, in the environment."""
    return os.environ.get("VOXVEC_ALLOW_INSECURE", "") == "1"


def host() -> str:
    """The server that the environment names, without the path and the query: keys have been seen in both.

    Raises:
        ConfigError: ``OPENAI_BASE_URL`` is no address of a server.
    """
    from voxvec._endpoint import origin_of  # noqa: PLC0415 -- imports what help does not need

    return urlsplit(origin_of(None)).netloc


def why_keyless() -> str:
    """Why no server answers where no model is named."""
    if not os.environ.get("OPENAI_BASE_URL"):
        return "OPENAI_API_KEY is not set, so the keyless backend answers"
    try:
        server = host()
    except ConfigError:
        server = "that server"
    return (
        "OPENAI_BASE_URL is set but OPENAI_API_KEY is not: set it (to anything, if the server needs none) "
        f"to use {server}; the keyless backend answers"
    )


def cache_path() -> Path:
    """The cache file of the command line: ``cache.db`` in ``VOXVEC_CACHE_DIR``, or in the user's cache folder."""
    return weights.cache_folder() / "cache.db"


class Backend:
    """Makes the clients of one command.

    Args:
        keep: Whether to use the cache file.
        keyless: Whether to use the keyless backend where no model is named; None if there is no key.
        sends: Whether anything will be sent; a plan can be made for any model without a key.
    """

    def __init__(self, *, keep: bool, keyless: bool | None = None, sends: bool = True) -> None:
        self._keyless = not has_key() if keyless is None else keyless
        self._sends = sends
        self._cache = vv.SqliteCache(cache_path()) if keep else None
        # Whoever chose it need not be told.
        self._told: set[str] | None = set() if keyless is None else None

    def embedder(self, model: str | None = None, *, dims: int | None = None) -> vv.Embedder:
        """A client that embeds.

        Args:
            model: The model the user named, if any.
            dims: Length of the vectors; None for the model's own.

        Raises:
            ConfigError: The model needs a key and there is none, or it cannot give that length.
        """
        name, client = self._choose(model, _EMBEDDING, _KEYLESS_EMBEDDING)
        return vv.Embedder(name, dimensions=dims, client=client, cache=self._cache, allow_insecure=_insecure())

    def transcriber(self, model: str | None = None) -> vv.Transcriber:
        """A client that transcribes; `embedder` tells of ``model`` and of the error."""
        name, client = self._choose(model, _TRANSCRIPTION, _KEYLESS_TRANSCRIPTION)
        return vv.Transcriber(name, client=client, cache=self._cache, allow_insecure=_insecure())

    def translator(self, model: str | None = None) -> vv.Transcriber:
        """A client that translates, which no keyless model does.

        Raises:
            ConfigError: There is no key.
        """
        if model is None and self._keyless:
            raise ConfigError(
                "there is no keyless model that translates, and OPENAI_API_KEY is not set; set it, or transcribe "
                "instead. Nothing was sent"
            )
        return self.transcriber(model or _TRANSLATION)

    def _choose(self, model: str | None, usual: str, keyless: str) -> tuple[str, openai.OpenAI | None]:
        if model in _KEYLESS or (model is None and self._keyless):
            if model is None:
                self._tell(keyless)
            return model or keyless, vv.local.client()
        if self._sends and not has_key():
            raise ConfigError(
                f"{model or usual} needs a key and OPENAI_API_KEY is not set; nothing was sent. "
                f"Set it, or name no model to use the keyless {keyless}"
            )
        return model or usual, None

    def _tell(self, name: str) -> None:
        """Say once who answers instead of a server; of the second model only what is new."""
        if self._told is None or name in self._told:
            return
        screen.say(
            f"{name} (English only) answers as well" if self._told else f"{why_keyless()}: {name} (English only)"
        )
        self._told.add(name)

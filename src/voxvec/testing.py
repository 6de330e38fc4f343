"""A fake OpenAI for tests: honest answers, real shapes, faults on demand, and a ledger of who paid for what.

Promises that the same text gives the same vector and the same recording the same transcript,
in every process; that what the real server refuses is refused; and that nothing leaves the
machine. Knows nothing about meaning: vectors of different texts are as good as unrelated.
"""

from __future__ import annotations

import json
import threading
from collections import Counter, deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from voxvec import tokens as tokenizers
from voxvec.local import forms, orders
from voxvec.local.exchange import Reply, Request, json_reply
from voxvec.local.fake_brain import FakeBrain, Said, digest
from voxvec.local.listener import listen
from voxvec.local.responder import Responder

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator, Mapping, Sequence
    from contextlib import AbstractContextManager

    import httpx2
    import openai

    from voxvec.tokens import Tokenizer

__all__ = ["Asked", "FakeOpenAI"]

_KEY: Final = "sk-fake-key-of-a-fake-server"
_REASONS: Final = {
    400: ("Invalid request.", "invalid_request_error", None),
    401: ("Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
    403: ("You are not allowed to do this.", "invalid_request_error", None),
    404: ("Not found.", "invalid_request_error", None),
    429: ("Rate limit reached for requests.", "requests", "rate_limit_exceeded"),
}
_BROKEN: Final = ("The server had an error while processing your request.", "server_error", None)
_QUOTA: Final = "You exceeded your current quota, please check your plan and billing details."


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it came in.

    Attributes:
        method: ``"POST"`` and the like.
        path: Path of the URL.
        endpoint: ``"embeddings"``, ``"audio/transcriptions"`` and so on; None for a path the API does not have.
        fields: JSON body, or form fields by name, each with the list of its values; empty for what is neither.
        inputs: Texts, or the digest of the recording.
        headers: By lower-case name.
    """

    method: str
    path: str
    endpoint: str | None
    fields: Mapping[str, Any]
    inputs: tuple[str, ...]
    headers: Mapping[str, str]

    @property
    def model(self) -> str | None:
        """Name of the model."""
        name = self.fields.get("model")
        first = cast("list[object]", name)[0] if isinstance(name, list) else name
        return first if isinstance(first, str) else None


@dataclass(slots=True)
class _Ledger:
    """What was asked, charged and delivered; every change under one lock."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    requests: list[Asked] = field(default_factory=list[Asked])
    charged: Counter[tuple[str | None, str]] = field(default_factory=Counter[tuple[str | None, str]])
    delivered: int = 0
    busy: int = 0
    peak: int = 0

    @contextmanager
    def serving(self, asked: Asked) -> Generator[int]:
        with self.lock:
            self.requests.append(asked)
            number = len(self.requests)
            self.busy += 1
            self.peak = max(self.peak, self.busy)
        try:
            yield number
        finally:
            with self.lock:
                self.busy -= 1

    def charge(self, asked: Asked) -> None:
        with self.lock:
            self.charged.update((asked.model, item) for item in asked.inputs)

    def deliver(self, asked: Asked) -> None:
        with self.lock:
            self.delivered += len(asked.inputs)


class FakeOpenAI:
    """A server in this process that answers like OpenAI's, and can be told to fail.

    It serves every model that `voxvec.models` knows. Use it through `client` (no socket),
    or through `serve` (a socket on this machine, for code that makes its own client).

    Args:
        models: Further embedding models and their dims.
        tokens: Counts the tokens of a text; by default they are those of ``cl100k_base``, or without tiktoken
            (the extra ``tokens``) a quarter of its UTF-8 bytes.
        mutate: Called with every request and its reply; what it returns goes out instead.

    Raises:
        TypeError: ``models`` is no mapping from names to dims.
        ValueError: A model would have no dims.

    Examples:
        >>> fake = FakeOpenAI(models={"tiny": 4})
        >>> fake.client().embeddings.create(model="tiny", input=["cat", "dog"]).usage.total_tokens
        2
        >>> fake.billed
        2
    """

    def __init__(
        self,
        *,
        models: Mapping[str, int] | None = None,
        tokens: Callable[[str], int] | None = None,
        mutate: Callable[[Request, Reply], Reply] | None = None,
    ) -> None:
        self.mutate = mutate
        self._brain = FakeBrain(orders.models(models or {}), tokens or _count)
        self._responder = Responder(self._brain, owner="openai")
        self._ledger = _Ledger()
        self._faults: deque[Reply] = deque()

    # -- what to answer

    def say(
        self,
        text: str,
        *,
        segments: Sequence[tuple[str, float, float] | tuple[str, float, float, str]] = (),
        for_audio: bytes | os.PathLike[str] | None = None,
        translation: str | None = None,
        language: str = "english",
        code: str = "en",
    ) -> None:
        """Set what is heard in a recording.

        Args:
            text: The transcript.
            segments: Text, start [s], end [s] and, if there are several, the speaker of each; by default
                the whole text is one segment that lasts as long as the recording.
            for_audio: The recording or its path; every recording if None.
            translation: English text, if it is not the same.
            language: English name of the spoken language.
            code: Code of the spoken language.

        Raises:
            TypeError: ``text`` or a segment's text is no str, or a time is no number.
            ValueError: A segment has fewer than three fields or more than four, or ends before it starts.
        """
        orders.check_text(text)
        heard = tuple(map(orders.segment, segments))
        data = Path(for_audio).read_bytes() if for_audio is not None and not isinstance(for_audio, bytes) else for_audio
        self._brain.said[None if data is None else digest(data)] = Said(text, heard, translation, language, code)

    def fail_next(
        self,
        status: int,
        *,
        times: int = 1,
        retry_after: float | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | str | Mapping[str, Any] | None = None,
    ) -> None:
        """Answer the next requests with a fault; faults queue up.

        Args:
            status: HTTP status, 400 to 599.
            times: How many requests, at least 1.
            retry_after: Value of the ``Retry-After`` header [s].
            code: OpenAI's word for the error, such as ``"insufficient_quota"``.
            headers: Further headers.
            body: Whole body, instead of OpenAI's error object.

        Raises:
            TypeError: ``status`` or ``times`` is no int, or ``retry_after`` no number.
            ValueError: ``status`` is no error, ``times`` is below 1, or ``retry_after`` below 0.
        """
        orders.check_fault(status, times, retry_after)
        reply = _fault(status, code) if body is None else _as_reply(status, body)
        waiting = {} if retry_after is None else {"retry-after": f"{retry_after:g}"}
        more = {name.lower(): value for name, value in (headers or {}).items()}
        self._faults.extend([Reply(status, {**reply.headers, **waiting, **more}, reply.body)] * times)

    # -- ways in

    def __call__(self, request: Request) -> Reply:
        """Answer one request; any thread may call."""
        asked = _asked(request)
        with self._ledger.serving(asked) as number:
            reply = self._reply(request, asked)
            return Reply(reply.status, {"x-request-id": f"req_fake_{number:06}", **reply.headers}, reply.body)

    def _reply(self, request: Request, asked: Asked) -> Reply:
        try:
            return self._faults.popleft()
        except IndexError:
            reply = self._responder(request)
        if reply.status == 200:  # noqa: PLR2004 -- HTTP's own word for success
            self._ledger.charge(asked)
        sent = reply if self.mutate is None else self.mutate(request, reply)
        if sent == reply and reply.status == 200:  # noqa: PLR2004 -- as above
            self._ledger.deliver(asked)
        return sent

    def transport(self) -> httpx2.BaseTransport:
        """A transport for `httpx2.Client` that ends here."""
        from voxvec.local.transport import LocalTransport  # noqa: PLC0415 -- a socket needs no httpx2

        return LocalTransport(self)

    def async_transport(self) -> httpx2.AsyncBaseTransport:
        """A transport for `httpx2.AsyncClient` that ends here."""
        from voxvec.local.transport import AsyncLocalTransport  # noqa: PLC0415 -- as above

        return AsyncLocalTransport(self)

    def client(self) -> openai.OpenAI:
        """A client whose every request ends here; it retries nothing by itself."""
        import httpx2  # noqa: PLC0415 -- as above
        import openai  # noqa: PLC0415 -- as above

        http = httpx2.Client(transport=self.transport())
        return openai.OpenAI(api_key=_KEY, base_url="http://fake.voxvec/v1", http_client=http, max_retries=0)

    def async_client(self) -> openai.AsyncOpenAI:
        """Do what `client` does, for async code."""
        import httpx2  # noqa: PLC0415 -- as above
        import openai  # noqa: PLC0415 -- as above

        http = httpx2.AsyncClient(transport=self.async_transport())
        return openai.AsyncOpenAI(api_key=_KEY, base_url="http://fake.voxvec/v1", http_client=http, max_retries=0)

    def serve(self) -> AbstractContextManager[str]:
        """Listen on a free port of this machine; the block gets the ``base_url``, its end closes every connection."""
        return listen(self)

    # -- the ledger

    @property
    def requests(self) -> list[Asked]:
        """Every request so far, in the order they came in."""
        with self._ledger.lock:
            return list(self._ledger.requests)

    @property
    def asked(self) -> int:
        """How many requests came in."""
        return len(self.requests)

    @property
    def billed(self) -> int:
        """How many texts and recordings the server computed a result for."""
        with self._ledger.lock:
            return self._ledger.charged.total()

    @property
    def delivered(self) -> int:
        """How many of those went out in a full, unchanged reply."""
        with self._ledger.lock:
            return self._ledger.delivered

    @property
    def paid_again(self) -> int:
        """How many of those it had computed before, with the same model."""
        with self._ledger.lock:
            return self._ledger.charged.total() - len(self._ledger.charged)

    @property
    def peak(self) -> int:
        """Most requests that were being answered at the same time."""
        with self._ledger.lock:
            return self._ledger.peak


@cache
def _tokenizer() -> Tokenizer | None:
    # Looked for once, and only when a text is to be counted: importing tiktoken takes a while, and so does missing it.
    return tokenizers.exact("cl100k_base")


def _count(text: str) -> int:
    tokenizer = _tokenizer()
    return -(-len(text.encode("utf-8", "replace")) // 4) if tokenizer is None else tokenizer.count(text)


def _as_reply(status: int, body: bytes | str | Mapping[str, Any]) -> Reply:
    if isinstance(body, (bytes, str)):
        raw = body.encode("utf-8") if isinstance(body, str) else body
        return Reply(status, {"content-type": "text/plain; charset=utf-8"}, raw)
    return json_reply(dict(body), status=status)


def _fault(status: int, code: str | None) -> Reply:
    message, kind, usual = _REASONS.get(status, _BROKEN)
    if code == "insufficient_quota":
        message, kind = _QUOTA, code
    return json_reply(
        {"error": {"message": message, "type": kind, "param": None, "code": code or usual}}, status=status
    )


def _asked(request: Request) -> Asked:
    fields, inputs = _contents(request)
    return Asked(request.method, request.path, request.endpoint, fields, inputs, request.headers)


def _contents(request: Request) -> tuple[dict[str, Any], tuple[str, ...]]:
    content_type = request.headers.get("content-type", "")
    try:
        if content_type.startswith("multipart/"):
            return _form_contents(forms.parse(content_type, request.body))
        body = json.loads(request.body)
    except ValueError:
        return {}, ()
    if not isinstance(body, dict):
        return {}, ()
    fields = cast("dict[str, Any]", body)
    given = fields.get("input")
    inputs = cast("list[object]", given) if isinstance(given, list) else [] if given is None else [given]
    return fields, tuple(map(str, inputs))


def _form_contents(form: forms.Form) -> tuple[dict[str, Any], tuple[str, ...]]:
    fields: dict[str, Any] = {}
    for name, value in form.fields:
        fields.setdefault(name, []).append(value)
    return fields, tuple(digest(upload.data) for upload in form.files.values())

"""A fake OpenAI for tests: honest answers, real shapes, faults on demand, and a ledger of who paid for what.

Promises that the same text gives the same vector and the same recording the same transcript,
in every process; that what the real server refuses is refused; and that nothing leaves the
machine. Knows nothing about meaning: vectors of different texts are as good as unrelated.
"""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from voxvec import tokens as tokenizers
from voxvec.local import orders
from voxvec.local.buckets import Limits
from voxvec.local.clocks import STEADY, Clock
from voxvec.local.fake_brain import FakeBrain, Said, digest
from voxvec.local.faults import Fault, Rule, Script
from voxvec.local.ledger import Asked, Ledger
from voxvec.local.listener import listen
from voxvec.local.mutations import MUTATIONS, Mutation
from voxvec.local.responder import Responder
from voxvec.local.scripted import Scripted

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    import httpx2
    import openai

    from voxvec.local.exchange import Reply, Request
    from voxvec.tokens import Tokenizer

__all__ = ["MUTATIONS", "Asked", "FakeOpenAI", "Fault", "Limits", "Mutation"]

_KEY: Final = "sk-fake-key-of-a-fake-server"


class FakeOpenAI:
    """A server in this process that answers like OpenAI's, and can be told to fail.

    It serves every model that `voxvec.models` knows. Use it through `client` (no socket),
    or through `serve` (a socket on this machine, for code that makes its own client).

    Args:
        models: Further embedding models and their dims.
        tokens: Counts the tokens of a text; by default they are those of ``cl100k_base``, or without tiktoken
            (the extra ``tokens``) a quarter of its UTF-8 bytes.
        mutate: Called with every request and its reply; what it returns goes out instead.
        limits: What it takes per minute; more is answered with 429. By default there is no limit.
        clock: An object with ``now()`` and ``sleep(seconds)``, both of which any thread may call; by default the real
            time. Slow answers, limits and ``Retry-After`` follow it, so that a storm can pass in no time.
        seed: Of all chance.
        grace: How long after it sent a ``Retry-After`` a request is still taken for one that was on its way [s].

    Raises:
        TypeError: ``models`` is no mapping from names to dims, or another argument of the wrong type.
        ValueError: A model would have no dims, or ``grace`` is below 0.

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
        limits: Limits | None = None,
        clock: Clock = STEADY,
        seed: int = 0,
        grace: float = 0.05,
    ) -> None:
        count = tokens or _count
        self._brain = FakeBrain(orders.models(models or {}), count)
        self._script = Script(seed)
        self._ledger = Ledger(orders.check_seconds(grace, "grace"))
        self._server = Scripted(
            honest=Responder(self._brain, owner="openai"),
            ledger=self._ledger,
            script=self._script,
            buckets=(limits or Limits()).buckets(),
            clock=clock,
            tokens=count,
        )
        self.mutate = mutate

    @property
    def mutate(self) -> Callable[[Request, Reply], Reply] | None:
        """Called with every request and its honest reply; what it returns goes out instead."""
        return self._server.mutate

    @mutate.setter
    def mutate(self, function: Callable[[Request, Reply], Reply] | None) -> None:
        self._server.mutate = function

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
        """Answer the next requests with an error; a shorthand for `misbehave`.

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
        orders.check_error(status, times, retry_after)
        fault = Fault(status=status, retry_after=retry_after, code=code, headers=headers, body=body)
        self._script.add(Rule(fault=fault, left=times))

    def misbehave(
        self,
        fault: Fault,
        *,
        at: int | Iterable[int] | None = None,
        when: Callable[[Asked], bool] | None = None,
        times: int | None = 1,
        chance: float = 1.0,
    ) -> None:
        """Let something go wrong with some requests.

        All orders stand in the order they were given; the first that is for a request and not used up is taken, so
        several orders without conditions come one after the other.

        Args:
            fault: What goes wrong.
            at: Number of the request, from 1, or several; each is taken once, whatever ``times`` says.
            when: Says of a request whether it is one; before its body has come, it has no inputs.
            times: How many requests, at least 1; None for any number.
            chance: Probability for each request that it would be for; drawn from the server's seed.

        Raises:
            TypeError: ``fault`` is none, a number is none, or ``when`` cannot be called.
            ValueError: A number is out of range, or the request is over.
        """
        numbers = None if at is None else frozenset((at,) if isinstance(at, int) else at)
        orders.check_rule(fault, numbers or (), times, chance, self.asked)
        orders.check_callable(when, "when")
        left = times if numbers is None else None
        self._script.add(Rule(fault=fault, at=numbers, when=when, chance=chance, left=left))

    def storm(self, seconds: float, status: int = 429, *, retry_after: float | None = None, start: float = 0.0) -> None:
        """Reject every request for a while.

        Args:
            seconds: How long [s].
            status: HTTP status, 400 to 599.
            retry_after: Value of the ``Retry-After`` header [s].
            start: When it begins, counted from the first request after this order [s].

        Raises:
            TypeError: A number is none.
            ValueError: A number is out of range.
        """
        orders.check_error(status, 1, retry_after)
        during = (orders.check_seconds(start, "start"), orders.check_seconds(seconds, "seconds"))
        self._script.add(Rule(fault=Fault(status=status, retry_after=retry_after), left=None, during=during))

    @property
    def pending(self) -> list[Fault]:
        """Faults that did not happen as often as ordered; a test that ends with some proved less than it says.

        One that was ordered for any number of requests is pending until it happens once.
        """
        return self._script.pending()

    # -- ways in

    def __call__(self, request: Request) -> Reply:
        """Answer one request; any thread may call.

        What would go wrong on a wire only stands in the reply's ``fault``.
        """
        reply = self._server.answer(request)
        reply.sent(True)
        return reply

    def transport(self) -> httpx2.BaseTransport:
        """A transport for `httpx2.Client` that ends here."""
        from voxvec.local.transport import LocalTransport  # noqa: PLC0415 -- a socket needs no httpx2

        return LocalTransport(self._server.answer, self._server.clock)

    def async_transport(self) -> httpx2.AsyncBaseTransport:
        """A transport for `httpx2.AsyncClient` that ends here."""
        from voxvec.local.transport import AsyncLocalTransport  # noqa: PLC0415 -- as above

        return AsyncLocalTransport(self._server.answer, self._server.clock)

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
        server = self._server
        return listen(partial(server.answer, hasty=False), early=server.early, clock=server.clock)

    # -- the ledger

    @property
    def requests(self) -> list[Asked]:
        """Every request so far, in the order they came in."""
        with self._ledger.lock:
            return list(self._ledger.requests)

    @property
    def asked(self) -> int:
        """How many requests came in."""
        return len(self._ledger.requests)

    @property
    def billed(self) -> int:
        """How many texts and recordings the server computed a result for."""
        return self._ledger.billed

    @property
    def delivered(self) -> int:
        """How many of those went out in a full reply that was right."""
        return self._ledger.delivered

    @property
    def paid_again(self) -> int:
        """How many of those it had computed before, with the same model."""
        return self._ledger.paid_again

    @property
    def paid_again_after_delivery(self) -> int:
        """How many of those it had delivered before, with the same model."""
        return self._ledger.paid_again_after_delivery

    @property
    def peak(self) -> int:
        """Most requests that were being answered at the same time."""
        return self._ledger.peak

    @property
    def rejected(self) -> int:
        """How many requests were answered with an error, status 400 or above."""
        return self._ledger.rejected

    @property
    def forbidden(self) -> int:
        """How many requests came in before a ``Retry-After`` was over; not those within ``grace`` of its sending."""
        return self._ledger.forbidden


@cache
def _tokenizer() -> Tokenizer | None:
    # Looked for once, and only when a text is to be counted: importing tiktoken takes a while, and so does missing it.
    return tokenizers.exact("cl100k_base")


def _count(text: str) -> int:
    tokenizer = _tokenizer()
    return -(-len(text.encode("utf-8", "replace")) // 4) if tokenizer is None else tokenizer.count(text)

"""What both embedding clients do without waiting; `voxvec.embedding.embedder` does the rest."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, get_args

from voxvec import models, tokens
from voxvec._failures import hush
from voxvec._run import StoppedError
from voxvec.embedding.settings import OnLong, Settings
from voxvec.embedding.texts import walk
from voxvec.errors import (
    AuthError,
    ConfigError,
    InputError,
    QuotaError,
    RefusedError,
    ResponseError,
    VoxvecError,
    VoxvecWarning,
)
from voxvec.models import EmbeddingModel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from voxvec._door import Reply, Request
    from voxvec._flights import Claim
    from voxvec._run import Call
    from voxvec.embedding.job import EmbeddingJob
    from voxvec.embedding.packing import Batch
    from voxvec.embedding.vectors import Embeddings
    from voxvec.embedding.wire import Decoded
    from voxvec.models import EmbeddingModelName, InputType

__all__ = ["LEASE", "Asking", "ElsewhereError", "OnError", "Room", "Texts", "common", "dropped"]

OnError: TypeAlias = Literal["raise", "keep"]


class _Column(Protocol):
    """A collection of texts that is no text itself: one may ask a column for anything, a `str` only for a `str`."""

    def __contains__(self, item: object, /) -> bool: ...
    def __iter__(self) -> Iterator[str]: ...


LEASE = 180.0
"""How long other processes leave to this one what it is buying [s]."""


class ElsewhereError(Exception):
    """Other processes are buying texts of a request, or have bought them; these are left for the next look.

    Attributes:
        instead: What to send instead: the rest, or nothing.
    """

    def __init__(self, rest: Batch | None) -> None:
        super().__init__()
        self.instead: list[Batch] = [] if rest is None else [rest]


Texts: TypeAlias = _Column | Iterator[str]
"""Many texts: a list, a generator, a column of pandas, polars, Arrow or NumPy; a single `str` is none."""


class Asking:
    """What both twins know, and what they do without waiting: texts to job, batch to request, reply to vectors."""

    def __init__(
        self,
        model: EmbeddingModelName | str | EmbeddingModel,
        *,
        dimensions: int | None,
        namespace: str | None,
        on_long: OnLong,
        strict_model: bool,
    ) -> None:
        known = models.find(model, kind="embedding") if isinstance(model, str) else model
        if not isinstance(known, EmbeddingModel):  # pyright: ignore[reportUnnecessaryIsInstance] -- untyped callers
            raise ConfigError(f"model must be the name of an embedding model or an EmbeddingModel, not {known!r:.80}")
        if namespace is not None and not isinstance(namespace, str):  # pyright: ignore[reportUnnecessaryIsInstance] -- untyped callers
            raise ConfigError(f"namespace must be a text or None, not {namespace!r:.80}")
        models.warn_if_deprecated(known)
        self._on_long: OnLong = on_long
        if on_long not in get_args(OnLong):
            raise ConfigError(f"on_long must be 'error', 'truncate' or 'chunk', not {on_long!r}")
        self.model = known.with_dims(dimensions)
        self._namespace, self._strict_model = namespace, strict_model
        self._width: dict[str, int] = {}  # of the first answer, where nobody knows it
        self._served: dict[str, None] = {}  # names that servers gave their model
        self.floats = known.base64 is False

    def job(
        self,
        texts: Texts,
        origin: str,
        dimensions: int | None,
        role: InputType | None,
        on_error: OnError,
        *,
        start: int = 0,
        keepable: bool = True,
    ) -> EmbeddingJob:
        """What to do about these texts; refuses those that cannot be sent."""
        from voxvec.embedding.job import EmbeddingJob  # noqa: PLC0415 -- imports NumPy, and a client that is only made needs none

        if on_error not in get_args(OnError):
            raise ConfigError(f"on_error must be 'raise' or 'keep', not {on_error!r}")
        if role not in {None, "query", "document"}:
            raise ConfigError(f"input_type must be 'query', 'document' or None, not {role!r}")
        settings = Settings(
            model=self.model.with_dims(dimensions),
            origin=origin,
            namespace=self._namespace,
            input_type=role,
            on_long=self._on_long,
            strict=self._strict_model,
        )
        return EmbeddingJob(texts, settings, keep=on_error == "keep", start=start, keepable=keepable)

    def request(self, job: EmbeddingJob, batch: Batch, timeout: float | None) -> Request:
        """The request for a batch."""
        from voxvec._door import Request  # noqa: PLC0415 -- as above
        from voxvec.embedding.wire import largest_reply  # noqa: PLC0415 -- as above

        encoding = "float" if self.floats else "base64"
        return Request(
            path="/embeddings",
            body={**job.settings.fields(), "input": list(batch.texts), "encoding_format": encoding},
            max_reply=largest_reply(len(batch), job.reply_dims),
            timeout=timeout or 60.0,
        )

    def read(self, job: EmbeddingJob, batch: Batch, reply: Reply) -> Decoded:
        """The checked vectors of a reply, decoded right into the job's matrix where they lie side by side."""
        from voxvec.embedding.wire import decode  # noqa: PLC0415 -- as above

        try:
            decoded = decode(
                reply.body,
                len(batch),
                job.reply_dims or self._width.get(self.model.name),
                out=job.room(batch),
                content_type=reply.content_type,
                most_tokens=batch.most_tokens,
                unit=job.settings.model.is_unit_length,
            )
            job.check(batch, decoded)
            self._check_model(job.settings, decoded.model)
            if job.settings.served_dims is None:
                self._check_width(decoded.vectors.shape[1])
        except ResponseError as error:
            # A server nobody knows may garble base64: the second request asks for plain numbers.
            self.floats = self.floats or self.model.base64 is None
            names = [batch.names[at] for at in error.positions] or batch.names
            error.positions, error.request_id = tuple(job.positions(names)), reply.request_id
            raise hush(error, reply.secrets) from None
        return decoded

    def _check_model(self, settings: Settings, served: str | None) -> None:
        if not settings.strict or served is None:
            return
        first = next(iter(self._served), served)
        if not settings.is_served_by(served) or served != first:
            asked = self.model.name if served == first else first
            raise ResponseError(
                f"{served} answered instead of {asked}, which strict_model=True forbids; the answer was billed",
                kind="malformed",
                billed="yes",
            )
        self._served.setdefault(served)

    def _check_width(self, width: int) -> None:
        first = self._width.setdefault(self.model.name, width)  # of several answers at a time one is the first
        if width != first:
            raise ResponseError(
                f"the vectors have {width} dimensions, earlier ones {first}; nothing of this answer was used, it was "
                "billed. If the model was changed on the server, make a new client",
                kind="malformed",
                billed="yes",
            )

    def result(self, job: EmbeddingJob) -> Embeddings:
        """What comes out; warns if another model has answered than before, whose vectors mean something else."""
        before, now = list(self._served), [name for name in job.served if name not in self._served]
        self._served.update(dict.fromkeys(now))
        if now and len(self._served) > 1:
            warnings.warn(
                f"{self.model.name} was answered by {now[-1]!r}, earlier by {[*before, *now][0]!r}: vectors of two "
                "models cannot be compared. Each row of a cache records its own; strict_model=True makes this an error",
                VoxvecWarning,
                stacklevel=4,
            )
        return job.result()

    def wants_floats(self, error: RefusedError) -> bool:
        """Whether a refusal means that the server does not know base64, which only trying can tell."""
        refuses = self.model.base64 is None and "encoding_format" in str(error)
        self.floats = self.floats or refuses
        return refuses

    def note(
        self, job: EmbeddingJob, failures: list[Exception], batch: Batch, error: Exception
    ) -> Sequence[Batch] | None:
        """Note a failure; what to send instead, perhaps nothing, or None to stop."""
        if isinstance(error, ElsewhereError):
            return error.instead
        if isinstance(error, StoppedError):
            job.account(error.attempts, error.maybe_billed)
            return None
        parts = job.split(batch, error)
        if parts:
            return parts
        if isinstance(error, VoxvecError):
            job.fail(batch, error)
            if job.keep and not _stops(error):
                return []
        failures.append(error)
        return None

    def check_held(self, job: EmbeddingJob, batch: Batch, held: Mapping[bytes, bytes | None]) -> None:
        """Go on only if all of a request is this call's to buy."""
        rest = job.rest(batch, held)
        if rest is not batch:
            raise ElsewhereError(rest)

    def settle(self, job: EmbeddingJob, call: Call, failures: list[Exception]) -> None:
        """Raise what stopped the call; if failures are to be kept, note it for everything that was not tried."""
        if not failures:
            if call.stopped:
                raise StoppedError
            return
        # Of several failures, one of a request that was really made says most.
        first = next((error for error in failures if getattr(error, "attempts", 1)), failures[0])
        if not job.keep or not isinstance(first, VoxvecError):
            raise first
        job.give_up(dict.fromkeys(job.open(), first))

    def inherit(self, job: EmbeddingJob, claim: Claim) -> None:
        """Take over what another call was refused for good instead of asking for it again."""
        error = job.inherit(claim.errors())
        if error is not None:
            raise error

    def windows(self, texts: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
        """Parts of one request's size, each with the position of its first text."""
        source, failure = walk(texts, "stream()"), None
        start, window, room = 0, list[str](), self.room()
        while True:
            try:
                text = next(source)
            except StopIteration:
                break
            except Exception as error:  # noqa: BLE001 -- the source's own, raised below after what came before it
                failure = error
                break
            if window and room.is_full(window, text):
                yield start, window
                start, window, room = start + len(window), [], self.room()
            window.append(text)
            room.add(text)
        if window:
            yield start, window
        if failure is not None:
            raise failure

    def room(self) -> Room:
        """An empty request."""
        return Room(self.model.max_items, self.model.max_request_tokens or math.inf, self.model.tokenizer)

    def one(self, text: str) -> list[str]:
        """A single text, as many."""
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance] -- untyped callers
            raise InputError(
                f"embed_one() takes one str, not {type(text).__name__}; for many, use embed(). Nothing was sent",
                positions=[0],
            )
        return [text]


def _stops(error: VoxvecError) -> bool:
    """Whether all other requests would end the same way."""
    kind, status = getattr(error, "kind", None), getattr(error, "status", None)
    return kind in {"quota", "breaker"} or isinstance(error, AuthError) or status == HTTPStatus.NOT_FOUND


def dropped(batch: Batch, instead: Sequence[Batch] | None) -> list[bytes]:
    """Names of a request that are in none of those sent instead, so that nobody waits for them here."""
    left = {name for part in instead or () for name in part.names}
    return [name for name in batch.names if name not in left]


def common(error: Exception) -> VoxvecError | None:
    """The error, if whoever asks the same would be told the same."""
    return error if isinstance(error, RefusedError | AuthError | QuotaError) else None


class Room:
    """How much still fits into a request, by the bound; what is no text is somebody else's business."""

    def __init__(self, items: int, tokens: float, tokenizer: str | None) -> None:
        self._items, self._tokens, self._tokenizer = items, tokens, tokenizer
        self._used = 0

    def is_full(self, window: Sequence[str], text: str) -> bool:
        """Whether the text would be too much."""
        return len(window) >= self._items or self._used + self._size(text) > self._tokens

    def add(self, text: str) -> None:
        """Count a text."""
        self._used += self._size(text)

    def _size(self, text: object) -> int:
        if not isinstance(text, str):
            return tokens.bound(self._tokenizer, 0)
        size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        return tokens.bound(self._tokenizer, size)

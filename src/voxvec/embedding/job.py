"""What to ask and how to assemble it.

A job is fed by a shell and never touches the network, the disk or the clock, so the sync and the async client are the
same program::

    job = EmbeddingJob(texts, settings)
    while names := job.open():                 # what is neither known nor failed
        damaged = job.fill(names, rows)        # rows the cache knew
        for batch in job.batches(names):       # what to ask
            fresh = job.receive(batch, decode(reply))
    job.result()                               # caller's order, duplicates restored

The file is long because a job is one object from the texts to the vectors; packing, keys and checks stand beside it.
"""

from __future__ import annotations

import copy
import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from voxvec import rows
from voxvec.embedding import copies
from voxvec.embedding import texts as column
from voxvec.embedding.packing import Batch, Packer, Slot, halves, portion, without
from voxvec.embedding.settings import Keys, Settings
from voxvec.embedding.vectors import Embeddings, Usage
from voxvec.embedding.wire import malformed
from voxvec.errors import InputError, RefusedError, ResponseError, ServiceError, VoxvecError
from voxvec.similarity.measures import truncate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from decimal import Decimal

    import numpy.typing as npt

    from voxvec.embedding.wire import Decoded

__all__ = ["EmbeddingJob", "EmbeddingPlan"]

Vector: TypeAlias = "npt.NDArray[np.float32]"

# How servers name the text at fault: input[17], $.input[17], body.input.17.
_NAMED = re.compile(r"\binput(?:\[|\.)(\d{1,5})\b")
_ABOUT_TEXTS = frozenset({400, 413, 422})  # refusals that may be about single texts of a request


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingPlan:
    """What a call would do; made without asking the server anything.

    Attributes:
        texts: Texts given.
        distinct: Different texts among them, parts of long ones counted singly; each is bought once.
        cached: Of these, how many the cache knows.
        requests: Requests to make.
        tokens: Tokens to pay for, at most [tokens].
        exact: Whether ``tokens`` was counted by the model's tokenizer, not bounded by bytes.
        cost: US dollars for ``tokens``; None if the price is unknown.
        batch_cost: The same through the Batch API.
        refused: Positions of texts that cannot be embedded, each with the reason.
    """

    texts: int
    distinct: int
    cached: int
    requests: int
    tokens: int
    exact: bool
    cost: Decimal | None
    batch_cost: Decimal | None
    refused: Mapping[int, str]


class EmbeddingJob:
    """Plans requests for texts, checks what comes back and puts it in order.

    Args:
        texts: What to embed; any iterable or column of str.
        settings: What decides which vectors come out.
        keep: Whether bad texts become failures of their own instead of stopping the call.
        start: Position of the first text in the caller's count.
        keepable: Whether the caller has the choice to keep going.

    Raises:
        InputError: Some texts cannot be sent; ``positions`` names them all.
        MissingExtraError: A text has to be truncated and the model's tokenizer is not installed.
    """

    def __init__(
        self,
        texts: Iterable[str],
        settings: Settings,
        *,
        keep: bool = False,
        start: int = 0,
        keepable: bool = True,
    ) -> None:
        self.settings, self.keep, self._start = settings, keep, start
        self.usage = Usage()
        self.served: dict[str, None] = {}  # names that servers gave their model, in the order they came
        self._done, self._long = 0, False
        self._matrix: Vector | None = None
        self._packer = Packer(settings.model, settings.on_long)
        self._dims = settings.served_dims
        given = column.as_list(texts)
        self._n = len(given)
        self._faults = column.check(given)
        self._failed: dict[int, VoxvecError] = {}
        self._slots: dict[bytes, Slot] = {}
        self._parts: dict[int, list[Slot]] = {}
        self._gather(given)
        if self._faults and not keep:
            raise column.refused({at + start: reason for at, reason in self._faults.items()}, keepable=keepable)
        self._failed = {at: column.refused({at: reason}) for at, reason in self._faults.items()}

    # What to ask

    def _gather(self, given: Sequence[Any]) -> None:
        keys = Keys(self.settings)
        known: dict[str, list[Slot]] = {}
        for position, text in enumerate(given):
            if position in self._faults:
                continue
            parts = known.get(text)
            if parts is None:
                try:
                    pieces = self._packer.fit(str(text), self.settings.prefix)
                except InputError as error:
                    self._faults[position] = str(error)
                    continue
                parts = known[text] = [self._slot(keys, piece) for piece in pieces]
                if len(parts) > 1:
                    self._long = True
                    self._packer.count(parts)  # they are weights of a mean: all by tokens, or all by the bound
            self._parts[position] = parts
            for part in parts:
                part.positions.append(position)

    def _slot(self, keys: Keys, text: str) -> Slot:
        name = keys.of(text.encode())
        slot = self._slots.get(name)
        if slot is None:
            slot = self._slots[name] = self._packer.slot(len(self._slots), text)
        return slot

    def open(self) -> list[bytes]:
        """Names of what is neither known nor failed."""
        return [name for name, slot in self._slots.items() if not slot.known and slot.error is None]

    def batches(self, names: Iterable[bytes]) -> list[Batch]:
        """What to ask to get these; what is known or has failed is left out."""
        if self._dims is not None:
            self._matrix_for(self._dims)  # before several threads ask for it
        wanted = [(name, self._slots[name]) for name in names]
        return list(self._packer.pack([(name, slot) for name, slot in wanted if not slot.known and slot.error is None]))

    def rest(self, batch: Batch, held: Mapping[bytes, bytes | None]) -> Batch | None:
        """What of a request is left to buy.

        Args:
            batch: The request.
            held: What of it nobody else is buying, each with the row that a cache has for it by now.

        Returns:
            The request itself, a smaller one, or None if nothing is left.
        """
        names = [
            name
            for name in batch.names
            if name in held and ((row := held[name]) is None or not self._serves(name, row))
        ]
        if len(names) == len(batch):
            return batch
        return portion(batch, names, self._slots) if names else None

    def _serves(self, name: bytes, blob: bytes) -> bool:
        row = rows.unpack(name, blob)
        if row is None or row.kind is not rows.Kind.VECTOR or not self._is_wanted(row):
            return False
        return self._fitting(np.frombuffer(row.payload, np.dtype("<f4"))) is not None

    def _is_wanted(self, row: rows.Row) -> bool:
        return not self.settings.strict or not row.model or self.settings.is_served_by(row.model)

    def positions(self, names: Iterable[bytes]) -> list[int]:
        """Where in the caller's texts these stand."""
        return sorted({position + self._start for name in names for position in self._slots[name].positions})

    # What came back

    def fill(self, found: Mapping[bytes, bytes]) -> list[bytes]:
        """Take rows from a cache, or from a call beside this one.

        Args:
            found: Rows by name; those too narrow for the dims wanted are left.

        Returns:
            Names of rows that are damaged or not what they claim, to be thrown out of the cache.
        """
        damaged: list[bytes] = []
        for name, blob in found.items():
            slot = self._slots.get(name)
            if slot is None:
                continue  # not asked for; caches may be anybody's
            row = rows.unpack(name, blob)
            if row is None or row.kind is not rows.Kind.VECTOR:
                damaged.append(name)
                continue
            if not self._is_wanted(row):
                continue
            stored = np.frombuffer(row.payload, np.dtype("<f4"))
            if not _is_sound(stored):
                damaged.append(name)
                continue
            vector = self._fitting(stored)
            if vector is not None:
                self._keep(slot, vector)
                slot.cached = True
                if row.model:
                    self.served[row.model] = None
        return damaged

    def _fitting(self, vector: Vector) -> Vector | None:
        """A known vector at the dims wanted, or None if it cannot serve them."""
        kind = self.settings.model.matryoshka
        if self._dims is None or len(vector) == self._dims:
            return vector
        if len(vector) < self._dims or kind == "none":
            return None
        if kind == "layernorm_prefix" and len(vector) != self.settings.model.native_dims:
            return None  # cut already: it cannot be layer-normalised over its full width any more
        return truncate(vector, self._dims, layer_norm=kind == "layernorm_prefix")

    def _keep(self, slot: Slot, vector: Vector) -> None:
        self._matrix_for(len(vector))[slot.at] = self._scaled(vector)
        if not slot.known:
            slot.known = True
            self._done += sum(len(self._parts[position]) == 1 for position in slot.positions)

    def _scaled(self, vector: Vector) -> Vector:
        """Unit length, where a short vector may be served without it and one that we cut has it."""
        model = self.settings.model
        if model.matryoshka == "none" or model.unit_length == "yes" or len(vector) == model.native_dims:
            return vector
        return truncate(vector, len(vector))

    def _matrix_for(self, width: int) -> Vector:
        if self._matrix is None:
            self._dims = width
            self._matrix = np.empty((len(self._slots), width), np.float32)
        return self._matrix

    def room(self, batch: Batch) -> Vector | None:
        """Where the rows of a reply belong, to be decoded right into; None if they do not lie side by side."""
        first, last = (self._slots[name].at for name in (batch.names[0], batch.names[-1]))
        if self._matrix is None or last - first + 1 != len(batch):
            return None
        return self._matrix[first : last + 1]

    @property
    def reply_dims(self) -> int | None:
        """Length that every vector of a reply must have; None until the first reply of an unknown model."""
        return self._dims

    def check(self, batch: Batch, reply: Decoded) -> None:
        """Refuse what each vector for itself does not show.

        Raises:
            ResponseError: One vector stands for two texts that any model tells apart; ``positions`` count from the
                first text of the request.
        """
        model = self.settings.model
        pair = copies.find(reply.vectors, batch.texts, model)
        if pair is not None:
            malformed(
                f"vectors {pair[0]} and {pair[1]} are the same, and their texts are not; if {model.name} cannot tell "
                "such texts apart, describe it with tells_apart=False",
                *pair,
            )

    def receive(self, batch: Batch, reply: Decoded) -> dict[bytes, bytes]:
        """Keep a checked reply.

        Returns:
            Its rows, for the cache.

        Raises:
            ResponseError: Its vectors are of another length than those of an earlier reply.
        """
        width = int(reply.vectors.shape[1])
        if self._dims not in {None, width}:
            raise ResponseError(
                f"the vectors have {width} dimensions, earlier ones {self._dims}; nothing of this answer was used, it "
                "was billed",
                kind="malformed",
                billed="yes",
            )
        if reply.model:
            self.served[reply.model] = None
        self.usage += Usage(
            tokens=batch.tokens if reply.tokens is None else reply.tokens,
            estimated=reply.tokens is None,
            miscounted=int(reply.miscounted),
        )
        model = reply.model or self.settings.model.name
        single = reply.tokens if len(batch) == 1 else None
        fresh: dict[bytes, bytes] = {}
        for name, vector in zip(batch.names, reply.vectors, strict=True):
            slot = self._slots[name]
            fresh[name] = rows.pack(  # as received: keeping it may scale it in place
                name,
                vector.astype("<f4", copy=False).data.cast("B"),
                kind=rows.Kind.VECTOR,
                width=width,
                tokens=slot.size if slot.exact else single,
                model=model,
            )
            self._keep(slot, vector)
        if batch.family is not None:
            batch.family.accepted += 1
        return fresh

    def account(self, requests: int, maybe_billed: int) -> None:
        """Note how many requests one part took, and how many failed ones of them may have been billed."""
        self.usage += Usage(requests=requests, retries=max(0, requests - 1), maybe_billed=maybe_billed)

    def knows(self, name: bytes) -> bool:
        """Whether this one has its vector."""
        slot = self._slots.get(name)
        return slot is not None and slot.known

    def split(self, batch: Batch, error: Exception) -> list[Batch]:
        """A request that was refused for some of its texts in two, if the rest is wanted; else empty."""
        if not self.keep or not isinstance(error, RefusedError) or error.status not in _ABOUT_TEXTS:
            return []
        named = _NAMED.search(str(error))
        parts = without(batch, int(named[1]), self._slots) if named else []
        parts = parts or halves(batch, self._slots)
        if parts:
            self.account(error.attempts, 0)
        return parts

    def fail(self, batch: Batch, error: VoxvecError) -> None:
        """Note that a request failed for good."""
        if isinstance(error, ServiceError | ResponseError):
            self.account(error.attempts, error.maybe_billed)
        self.give_up(dict.fromkeys(batch.names, error))
        if not error.positions:
            error.positions = tuple(self.positions(batch.names))
        if self.keep:
            error.__traceback__ = None  # it is not raised, and must not keep frames, texts and clients alive

    def give_up(self, errors: Mapping[bytes, VoxvecError]) -> None:
        """Note what will not come, and why."""
        for name, error in errors.items():
            self._slots[name].error = error

    def inherit(self, errors: Mapping[bytes, VoxvecError]) -> VoxvecError | None:
        """Note what another call was refused for good; returns the error to raise, if this call is to stop."""
        if not errors:
            return None
        error = copy.copy(next(iter(errors.values())))
        error.positions = tuple(self.positions(errors))
        self.give_up(dict.fromkeys(errors, error))
        return None if self.keep else error

    # What comes out

    def result(self) -> Embeddings:
        """The vectors in the caller's order; rows of what failed or was not tried are NaN."""
        model, array = self.settings.model, self._in_order()
        if model.dims is not None and array.shape[1] > model.dims:
            array = _cut(array, model.dims, layer_norm=model.matryoshka == "layernorm_prefix")
        return Embeddings(
            array=array,
            model=next(reversed(self.served), model.name),
            usage=self.usage,
            cost=None if model.price is None else self.usage.tokens * model.price / 1_000_000,
            cached=sum(all(part.cached for part in parts) for parts in self._parts.values()),
            failed=self.failed(),
            # A layer-normalised prefix cannot be layer-normalised again.
            matryoshka="none"
            if model.matryoshka == "layernorm_prefix" and model.dims != model.native_dims
            else model.matryoshka,
        )

    def failed(self) -> dict[int, VoxvecError]:
        """What went wrong for good, by position."""
        failed = dict(self._failed)
        for position, parts in self._parts.items():
            for part in parts:
                if part.error is not None:
                    failed[position] = part.error
        return dict(sorted(failed.items()))

    def _in_order(self) -> Vector:
        matrix = self._matrix_for(self._dims or 0) if self._slots else np.empty((0, self._dims or 0), np.float32)
        matrix[[slot.at for slot in self._slots.values() if not slot.known]] = np.nan
        if (
            self._n == len(matrix)
            and len(self._parts) == self._n
            and len(self._slots) == sum(map(len, self._parts.values()))
        ):
            return matrix  # every text is different and in one piece
        ordered = np.full((self._n, matrix.shape[1]), np.nan, np.float32)
        for position, parts in self._parts.items():
            if len(parts) == 1:
                ordered[position] = matrix[parts[0].at]
            elif all(part.known for part in parts):
                ordered[position] = _mean(matrix[[part.at for part in parts]], [part.size for part in parts])
        return ordered

    def done(self) -> int:
        """Texts that have their vector."""
        in_parts = (parts for parts in self._parts.values() if len(parts) > 1) if self._long else ()
        return self._done + sum(all(part.known for part in parts) for parts in in_parts)

    def __len__(self) -> int:
        return self._n

    def explain(self, error: VoxvecError) -> VoxvecError:
        """Write on an error how far the call came and what it bought."""
        error.done, error.failed = self.done(), len(self.failed())
        error.pending = self._n - error.done - error.failed
        partial, cause = self.result(), copy.copy(error)  # a copy, or error and partial would hold each other
        rest = {position: cause for position, parts in self._parts.items() if not all(part.known for part in parts)}
        error.partial = replace(partial, failed=dict(sorted({**rest, **partial.failed}.items())))
        return error

    def plan(self) -> EmbeddingPlan:
        """What is still to do."""
        self._packer.count(self._slots[name] for name in self.open())
        batches = self.batches(self.open())
        left = [self._slots[name] for batch in batches for name in batch.names]
        size, model = sum(batch.tokens for batch in batches), self.settings.model

        def cost(price: Decimal | None) -> Decimal | None:
            return None if price is None else size * price / 1_000_000

        return EmbeddingPlan(
            texts=self._n,
            distinct=len(self._slots),
            cached=sum(slot.cached for slot in self._slots.values()),
            requests=len(batches),
            tokens=size,
            exact=all(slot.exact for slot in left),
            cost=cost(model.price),
            batch_cost=cost(model.batch_price),
            refused={position: str(error) for position, error in self._failed.items()},
        )


def _is_sound(vector: Vector) -> bool:
    """Whether a row's vector could be of a checked answer: whoever can write to a cache can seal anything."""
    with np.errstate(over="ignore", invalid="ignore"):
        return 0 < float(vector.dot(vector)) < math.inf


def _mean(parts: Vector, weights: Sequence[int]) -> Vector:
    """The mean of a long text's parts, weighted by their tokens and brought to unit length."""
    mean = np.average(parts.astype(np.float64), axis=0, weights=weights).astype(np.float32)
    return truncate(mean, len(mean))


def _cut(array: Vector, dims: int, *, layer_norm: bool) -> Vector:
    """Matryoshka prefixes of the rows that are there."""
    there = ~np.isnan(array).any(axis=1)
    cut = np.full((len(array), dims), np.nan, np.float32)
    cut[there] = truncate(array[there], dims, layer_norm=layer_norm)
    return cut

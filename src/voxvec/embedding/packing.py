"""How much fits: long texts into pieces, pieces into requests.

Pure. Without the model's tokenizer the number of UTF-8 bytes stands in, which is never too small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from voxvec import tokens
from voxvec.errors import ConfigError, InputError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from voxvec.embedding.settings import OnLong
    from voxvec.errors import VoxvecError
    from voxvec.models import EmbeddingModel
    from voxvec.tokens import Tokenizer

__all__ = ["Batch", "Family", "Packer", "Slot", "halves", "portion", "without"]

_LONGEST_TOKEN = 128  # characters; of cl100k_base, and more than any other model's
_LONGEST_TEXT = 2**24  # characters, where the model's limit is unknown: 128 thousand tokens of the longest
_AROUND = 64  # what servers put around a text: a start, an end, an instruction [tokens]


@dataclass(slots=True, eq=False)
class Slot:
    """One thing to buy: a text as it is sent, and where its vector goes."""

    at: int  # its row in the matrix of everything to buy
    text: str
    size: int  # tokens, at most
    exact: bool
    alone: bool = False  # over the model's limit by the bound only: let the server decide, at no other text's risk
    positions: list[int] = field(default_factory=list[int])
    known: bool = False
    cached: bool = False
    error: VoxvecError | None = None


@dataclass(slots=True, eq=False)
class Family:
    """The parts of a request that the server refused, while the text at fault is looked for."""

    size: int  # texts in the request that was refused first
    refused: int = 0
    named: int = 0  # texts that the server itself pointed at
    accepted: int = 0

    @property
    def hopeless(self) -> bool:
        """Whether not the texts are at fault: a search that went down to single texts found none that is accepted."""
        return not self.accepted and self.refused > 2 * math.ceil(math.log2(self.size)) + 2


@dataclass(frozen=True, slots=True)
class Batch:
    """One request.

    Attributes:
        names: Keys of its texts.
        texts: What is sent, in this order.
        tokens: Upper bound of what it is charged for, exact where a tokenizer was at hand [tokens].
        family: What became of the request it was cut out of, if it was.
    """

    names: tuple[bytes, ...]
    texts: tuple[str, ...] = field(repr=False)
    tokens: int
    family: Family | None = None

    @property
    def most_tokens(self) -> int:
        """What a server can have counted at most, whatever it put around the texts [tokens]."""
        return sum(len(text) if text.isascii() else len(text.encode()) for text in self.texts) + _AROUND * len(self)

    def __len__(self) -> int:
        return len(self.names)


class Packer:
    """Measures texts and packs them under a model's limits.

    Args:
        model: Whose limits.
        on_long: What to do with a text that is too long.
    """

    def __init__(self, model: EmbeddingModel, on_long: OnLong) -> None:
        self._model, self._on_long = model, on_long

    @cached_property
    def _tokenizer(self) -> Tokenizer | None:
        return tokens.exact(self._model.tokenizer)

    def _bound(self, text: str) -> int:
        return tokens.bound(self._model.tokenizer, len(text.encode()))

    def slot(self, at: int, text: str) -> Slot:
        """A text that fits, measured; exactly only if it seems not to fit."""
        slot = Slot(at, text, self._bound(text), exact=False)
        if slot.size > (self._model.max_tokens or math.inf):
            self.count([slot])
            slot.alone = not slot.exact
        return slot

    def count(self, slots: Iterable[Slot]) -> None:
        """Measure by the model's tokenizer, if there is one at hand."""
        for slot in slots:
            if self._tokenizer is not None and not slot.exact:
                slot.size, slot.exact = self._tokenizer.count(slot.text), True

    def fit(self, text: str, prefix: str = "") -> list[str]:
        """The text in pieces that the model takes, each behind the prefix; one piece unless it is too long.

        Raises:
            InputError: It is too long, and that is an error; the message is the reason alone.
            MissingExtraError: It has to be truncated, and the model's tokenizer is not installed.
            ConfigError: It has to be truncated, and nobody has the model's tokenizer.
        """
        limit = self._model.max_tokens
        most = _LONGEST_TEXT if limit is None else limit * _LONGEST_TOKEN
        if len(text) > most and (limit is None or self._on_long == "error"):
            # Told without encoding it: that, and counting, takes its time and several times its memory.
            takes = "any model takes" if limit is None else f"the {limit} tokens that {self._model.name} takes can hold"
            raise InputError(f"has {len(text):,} characters, more than {takes}: shorten it, or cut it into several")
        if len(text) > most and self._on_long == "truncate":
            text = text[:most]
        whole = prefix + text
        if limit is None or self._bound(whole) <= limit:
            return [whole]
        count = None if self._tokenizer is None else self._tokenizer.count(whole)
        if count is not None and count <= limit:
            return [whole]
        if self._on_long != "error":
            return [prefix + piece for piece in self._pieces(text, limit - self._bound(prefix) if prefix else limit)]
        if count is None:
            return [whole]  # too long only by the bound: the server decides
        raise InputError(
            f"has {count} tokens, {self._model.name} takes {limit}: shorten it, or pass on_long='truncate' or 'chunk'"
        )

    def _pieces(self, text: str, limit: int) -> list[str]:
        if self._on_long == "chunk" and self._tokenizer is None:
            return tokens.cut_by_bound(text, limit, self._model.tokenizer)
        if self._tokenizer is None:
            raise self._no_tokenizer()
        pieces = self._tokenizer.cut(text, limit)
        return pieces[:1] if self._on_long == "truncate" else pieces

    def _no_tokenizer(self) -> VoxvecError:
        what = f"on_long='truncate' with {self._model.name}"
        if self._model.tokenizer == "cl100k_base":
            return MissingExtraError(what, extra="tokens")
        return ConfigError(
            f"{what} needs the model's tokenizer, and none is at hand: use on_long='chunk', which does without, or "
            "lend one by voxvec.tokens.provide() (`voxvec local install` brings that of all-MiniLM-L6-v2). "
            "Nothing was sent"
        )

    def pack(self, wanted: Sequence[tuple[bytes, Slot]]) -> Iterator[Batch]:
        """Requests for these, in their order, within the model's limits of texts and tokens."""
        limit = self._model.max_request_tokens or math.inf
        if sum(slot.size for _, slot in wanted) > limit:
            self.count(slot for _, slot in wanted)  # the bound would make more requests than needed
        full: list[tuple[bytes, Slot]] = []
        size = 0
        for name, slot in wanted:
            if slot.alone:
                yield _batch([(name, slot)])
                continue
            if full and (len(full) == self._model.max_items or size + slot.size > limit):
                yield _batch(full)
                full, size = [], 0
            full.append((name, slot))
            size += slot.size
        if full:
            yield _batch(full)


def halves(batch: Batch, slots: Mapping[bytes, Slot]) -> list[Batch]:
    """A refused request in two, to find the text at fault; empty if it cannot be cut, or looking on is hopeless."""
    family = batch.family or Family(len(batch))
    family.refused += 1
    if len(batch) == 1 or family.hopeless:
        return []
    middle = len(batch) // 2
    parts = (batch.names[:middle], batch.names[middle:])
    return [replace(_batch([(name, slots[name]) for name in names]), family=family) for names in parts]


def portion(batch: Batch, names: Sequence[bytes], slots: Mapping[bytes, Slot]) -> Batch:
    """A request for these texts of another."""
    return replace(_batch([(name, slots[name]) for name in names]), family=batch.family)


_MOST_NAMED = 64  # texts of one request that a server may point at, one by one, before it is no longer believed


def without(batch: Batch, at: int, slots: Mapping[bytes, Slot]) -> list[Batch]:
    """A refused request in two: the text that the server named, and all others; empty if that leads nowhere."""
    family = batch.family or Family(len(batch))
    if not 0 <= at < len(batch) or len(batch) == 1 or family.named >= _MOST_NAMED:
        return []
    family.named += 1
    # Asked by itself once more, should the server have counted otherwise than we.
    parts = ((batch.names[at],), (*batch.names[:at], *batch.names[at + 1 :]))
    alone, others = (_batch([(name, slots[name]) for name in names]) for names in parts)
    return [alone, replace(others, family=family)]


def _batch(slots: list[tuple[bytes, Slot]]) -> Batch:
    return Batch(
        tuple(name for name, _ in slots), tuple(slot.text for _, slot in slots), sum(slot.size for _, slot in slots)
    )

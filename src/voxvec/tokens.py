"""How many tokens a text has: exactly where the tokenizer is at hand, never too few elsewhere.

Pure but for one reading of the bundled table: no network ever, no server, no client, no clock. Whoever has another
tokenizer lends it with `provide`, and does the reading for it.

The table ``cl100k_base.tiktoken.gz`` is OpenAI's ``cl100k_base.tiktoken``, packed and otherwise unchanged, from
https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken. It and the pattern below, which stands in
``tiktoken_ext/openai_public.py`` of https://github.com/openai/tiktoken, are Copyright (c) 2022 OpenAI, Shantanu Jain,
under the MIT licence, whose terms are those of this package's LICENSE.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import itertools
import re
import unicodedata
import zlib
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Protocol

from voxvec.errors import ConfigError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import tiktoken

__all__ = ["Tokenizer", "bound", "cut_by_bound", "cut_by_count", "exact", "provide"]

_OWN = "cl100k_base"
_CL100K_SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
_CL100K_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)

# Tokens that a tokenizer may add to those of the text's bytes; see bound().
_ADDED = {_OWN: 0, "wordpiece": 2}
_ADDED_BY_OTHERS = 3

# tiktoken's regex engine gives up on a million blanks in a row, with a panic that `except Exception` does not catch.
# Blanks are what it calls white space (Python knows four more), line ends left out.
_LONG = 100_000
_BLANK = r"[\t\v\f \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"
_BLANKS = rf"(?<!{_BLANK}){_BLANK}{{{_LONG},}}+(?=[^\r\n])"

# Where a piece had best end; the end of a match counts.
_SENTENCE = r"[.!?…؟।۔][\"'”’»)\]]*(?=\s)|[。！？｡]+[」』”’]*|(?<=\S)(?=[\r\n])"
_WORD = r"(?<=\S)(?=\s)|[、，；：]"

# Pairs that make one visible character, after UAX #29, https://www.unicode.org/reports/tr29/ (GB3, 6 to 9a, 11).
_TOGETHER = (
    r"(?s)\r\n"
    r"|\u200d."
    r"|.[\u200c\u200d\u0e33\u0eb3\uff9e\uff9f\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]"
    r"|.[\u1160-\u11ff\ud7b0-\ud7ff]"
    r"|[\u1100-\u115f\ua960-\ua97f][\u1100-\u115f\ua960-\ua97f\uac00-\ud7a3]"
)
_REGIONAL = range(0x1F1E6, 0x1F200)
_VIRAMA = 9


# What provide() was given. Known to the whole process, as its models are.
_lent: dict[str, Callable[[], Tokenizer]] = {}


@cache
def _pattern(source: str) -> re.Pattern[str]:
    # Compiled on first use: at import all four would cost every program 1.5 ms, and most never cut a text.
    return re.compile(source)


class Tokenizer(Protocol):
    """Counts the tokens of a text exactly, and cuts it. Safe to call from any thread."""

    def count(self, text: str) -> int:
        """How many tokens the server counts against its limit, those that it adds itself among them.

        The spelling of a special token is text like any other.
        """
        ...

    def cut(self, text: str, limit: int) -> list[str]:
        """The text in pieces.

        Args:
            text: Without lone surrogates.
            limit: Most tokens in a piece.

        Returns:
            Pieces whose concatenation is the text, each counted after the cut. They end with a sentence or a word
            where one ends near the limit, and within a visible character only if that alone is too long. The empty
            text has no pieces.

        Raises:
            InputError: One character has more tokens than the limit.
        """
        ...


def exact(name: str | None) -> Tokenizer | None:
    """The tokenizer itself, or None if only `bound` can be told.

    Args:
        name: As in `voxvec.models.EmbeddingModel.tokenizer`. ``"cl100k_base"`` is at hand where tiktoken is
            installed (the extra ``tokens``), with its table from this package; another, such as
            ``"wordpiece"`` (BERT's, uncased), where somebody lends it with `provide`.

    Raises:
        ConfigError: The installed table is damaged.
    """
    if name == _OWN:
        return _own()
    load = _lent.get(name or "")
    try:
        return None if load is None else load()
    except ConfigError:
        return None


def provide(name: str, load: Callable[[], Tokenizer]) -> None:
    """Lend a tokenizer to the whole process, in place of one lent under this name before.

    This is how a backend that has the vocabulary makes it known to its clients, so that they count exactly what it
    will count: `voxvec.local` lends ``"wordpiece"``.

    Args:
        name: As in `voxvec.models.EmbeddingModel.tokenizer`.
        load: Gives it; called from any thread, whenever it is wanted, so it keeps what it has read. A ``ConfigError``
            of its means that the tokenizer is not available now, and then only `bound` can be told.

    Raises:
        ConfigError: The name is ``"cl100k_base"``, which this package brings itself.
    """
    if name == _OWN:
        raise ConfigError(f"the tokenizer {name} comes with voxvec; provide another under a name of its own")
    _lent[name] = load


def bound(name: str | None, size: int) -> int:
    """How many tokens a text can have at most, by its length alone.

    Byte-level BPE (``cl100k_base``): every token is at least one byte. ``wordpiece``: every piece is at least one
    character of the normalised text, which has no more characters than the text had bytes, and ``[CLS]`` and
    ``[SEP]`` come on top. Any other: what SentencePiece with byte fallback can reach, one token per byte, a start, an
    end and the blank it puts first. That last one is proven for tokenizers that do not lengthen the text before they
    split it; Unicode's NFKC, which some apply, lengthens a few rare ligatures (U+FDFA to 18 characters).

    Args:
        name: As in `voxvec.models.EmbeddingModel.tokenizer`; None if unknown.
        size: Length of the text [UTF-8 bytes].

    Returns:
        Upper bound [tokens], special tokens included.
    """
    return size + _ADDED.get(name or "", _ADDED_BY_OTHERS)


def cut_by_count(text: str, limit: int, count: Callable[[str], int]) -> list[str]:
    """Do what `Tokenizer.cut` does, for a tokenizer that can only count.

    Args:
        text: Without lone surrogates.
        limit: Most tokens in a piece.
        count: How many tokens a text has.

    Raises:
        InputError: One character has more tokens than the limit.
    """
    whole = count(text)
    if text and whole <= limit:
        return [text]
    pieces: list[str] = []
    start, rate = 0, len(text) / max(1, whole)
    while start < len(text):
        end = _furthest(text, start, limit, count, rate)
        if end == start:
            raise InputError(
                f"a character of the text can have {count(text[start])} tokens, the limit is {limit}; "
                "nothing was sent; allow more tokens"
            )
        end = next(near for near in _ends(text, start, end) if count(text[start:near]) <= limit)
        pieces.append(text[start:end])
        start = end
    return pieces


def cut_by_bound(text: str, limit: int, name: str | None) -> list[str]:
    """Do what `Tokenizer.cut` does, with `bound` for the count: pieces are safe, and shorter than they need be.

    Args:
        text: Without lone surrogates.
        limit: Most tokens in a piece.
        name: As in `bound`.

    Raises:
        InputError: One character may have more tokens than the limit.
    """
    return cut_by_count(text, limit, lambda piece: bound(name, len(piece.encode())))


class _BytePairs:
    """A `Tokenizer` made of tiktoken's encoder."""

    def __init__(self, encode: Callable[[str], list[int]]) -> None:
        self._encode = encode

    def count(self, text: str) -> int:
        if len(text) < _LONG:
            return len(self._encode(text))
        return sum(len(self._encode(part)) for part in _digestible(text))

    def cut(self, text: str, limit: int) -> list[str]:
        return cut_by_count(text, limit, self.count)


def _own() -> Tokenizer | None:
    try:
        import tiktoken  # noqa: PLC0415 -- an extra
    except ImportError:
        return None
    return _cl100k(tiktoken.Encoding)


@cache
def _cl100k(encoding: type[tiktoken.Encoding]) -> _BytePairs:
    packed = resources.files("voxvec").joinpath("cl100k_base.tiktoken.gz").read_bytes()
    # No special tokens: a text that spells one is only text, to the embeddings endpoint and to encode_ordinary.
    made = encoding(_OWN, pat_str=_CL100K_PATTERN, mergeable_ranks=_ranks(packed), special_tokens={})
    return _BytePairs(made.encode_ordinary)


def _ranks(packed: bytes) -> dict[bytes, int]:
    """The table: a line per token, its bytes in base64 and its rank."""
    try:
        table = gzip.decompress(packed)
    except (OSError, EOFError, zlib.error):
        table = b""
    if hashlib.sha256(table).hexdigest() != _CL100K_SHA256:
        raise ConfigError("the table cl100k_base.tiktoken.gz of voxvec is damaged; nothing was sent; reinstall voxvec")
    return {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, table.splitlines())}


def _digestible(text: str) -> Iterator[str]:
    """Parts whose counts add up to that of the text, without runs of white space that tiktoken cannot take.

    The pattern itself parts such a run from what comes before, and all but its last character from what follows.
    """
    start = 0
    for blanks in _pattern(_BLANKS).finditer(text):
        yield text[start : blanks.start()]
        yield text[blanks.start() : blanks.end() - 1]
        start = blanks.end() - 1
    yield text[start:]


def _furthest(text: str, start: int, limit: int, count: Callable[[str], int], rate: float) -> int:
    """Where a piece that starts here may end at the latest, to within 1/64 of the limit.

    Counts do not grow evenly, and at a seam not even steadily: so guess, count, and guess better, taking turns with
    halving, until the furthest end that fits and the nearest that does not are close. ``rate`` is the first guess
    [characters per token].
    """
    aim, enough = limit - limit // 128, limit - limit // 64
    fits, taken = start, 0
    beyond, over = len(text) + 1, 0
    turn = 0
    while taken < enough and beyond - fits > 1:
        if not over:
            step = int((aim - taken) * rate * 2**turn)
            if len(text) - fits - step < step // 16:
                step = len(text) - fits  # rather all of it than a crumb for the next piece
        elif turn % 2:
            step = (beyond - fits) // 2
        else:
            step = (beyond - fits) * (aim - taken) // (over - taken)
        probe = min(fits + max(1, step), beyond - 1)
        tokens = count(text[start:probe])
        if tokens <= limit:
            fits, taken = probe, tokens
        else:
            beyond, over = probe, tokens
        turn += 1
    return fits


def _ends(text: str, start: int, end: int) -> Iterator[int]:
    """Ends for a piece that fits up to ``end``, the best first and ``end`` itself last."""
    size = end - start
    if end < len(text):
        for boundary in (_SENTENCE, _WORD):
            near = _pattern(boundary).finditer(text, end - min(size // 2, 16 + size // 16), end + 1)
            found = [match.end() for match in near]
            yield from itertools.islice((at for at in reversed(found) if at <= end and _whole(text, start, at)), 1)
        yield from itertools.islice((at for at in range(end, start, -1) if _whole(text, start, at)), 1)
    yield end


def _whole(text: str, start: int, at: int) -> bool:
    """Whether no visible character is cut here, in a text known to be whole at ``start``."""
    before, after = text[at - 1], text[at]
    if unicodedata.category(after).startswith("M") or _pattern(_TOGETHER).match(text, at - 1):
        return False
    if unicodedata.combining(before) == _VIRAMA and after.isalpha():  # GB9c: a conjunct of two consonants
        return False
    return ord(after) not in _REGIONAL or _regional_before(text, start, at) % 2 == 0


def _regional_before(text: str, start: int, at: int) -> int:
    """How many regional indicators stand before; two make a flag (GB12, 13)."""
    return sum(1 for _ in itertools.takewhile(lambda i: ord(text[i]) in _REGIONAL, range(at - 1, start - 1, -1)))

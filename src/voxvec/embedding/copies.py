"""One vector for two texts: an honest answer of a model that reads both alike, or a row that was copied.

Pure. A vector alone does not say whose it is, so this is judged by the texts: those that any model tells apart must not
have the same vector.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    import numpy.typing as npt

    from voxvec.models import EmbeddingModel

__all__ = ["find"]

_FEWEST_DIMS = 8  # in fewer, two texts may have the same vector by chance
_HEAD = 4  # numbers of a row that are compared before all of it is
_BYTE_LEVEL = frozenset({"cl100k_base"})  # tokenizers that lose nothing of a text
_WINDOW = 256  # characters; servers cut texts without a word, and the shortest windows are of 128 tokens
_LONGEST_WORD = 100  # characters
_DROPPED = {"Mn", "Mc", "Me", "Cf"}  # accents, joiners, marks of direction
_WORD = re.compile(r"\w+")


def find(vectors: npt.NDArray[np.float32], texts: Sequence[str], model: EmbeddingModel) -> tuple[int, int] | None:
    """Positions of two texts that have the same vector and must not; None if there are none.

    Args:
        vectors: Of the texts, shape ``(n, dims)``.
        texts: All different.
        model: Whose vectors they are.
    """
    if vectors.shape[1] < _FEWEST_DIMS or model.tells_apart is False:
        return None
    sure = model.tells_apart or model.tokenizer in _BYTE_LEVEL
    pairs = _same(vectors)
    return next(((a, b) for a, b in pairs if sure or not _alike(texts[a], texts[b], model.tokenizer)), None)


def _same(vectors: npt.NDArray[np.float32]) -> Iterator[tuple[int, int]]:
    """Pairs of rows that are equal bit by bit, each row with the first that is like it."""
    # Nearly always all rows differ in their first few numbers, which are much faster to compare than all.
    joined = vectors[:, :_HEAD].tobytes()
    size = len(joined) // len(vectors)
    heads = [joined[at * size : (at + 1) * size] for at in range(len(vectors))]
    times = Counter(heads)
    if len(times) == len(heads):
        return
    firsts: dict[bytes, int] = {}
    for at, head in enumerate(heads):
        first = at if times[head] == 1 else firsts.setdefault(vectors[at].tobytes(), at)
        if first != at:
            yield first, at


def _alike(a: str, b: str, tokenizer: str | None) -> bool:
    """Whether a model that loses something of a text may read both as the same.

    Case, accents, punctuation, pictures, blanks and the order of the words may be lost on it, and so may what follows
    a long beginning.
    """
    one, other = _words(a, tokenizer), _words(b, tokenizer)
    return set(one) == set(other) or _beginning(one) == _beginning(other)


def _words(text: str, tokenizer: str | None) -> list[str]:
    plain = "".join(char for char in unicodedata.normalize("NFKD", text) if unicodedata.category(char) not in _DROPPED)
    words = _WORD.findall(plain.casefold())
    # What the vocabulary does not spell, or what is too long for a word, is all one to it.
    return (
        [word for word in words if word.isascii() and len(word) <= _LONGEST_WORD] if tokenizer == "wordpiece" else words
    )


def _beginning(words: list[str]) -> str:
    return " ".join(words)[:_WINDOW]

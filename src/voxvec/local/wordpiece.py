"""BERT's uncased WordPiece: from text to the token ids that MiniLM reads.

Pure. Gives what the ``tokenizers`` library gives, but for a literal ``[CLS]`` in a text,
which is text here and never a special token. Is a `voxvec.tokens.Tokenizer`.

Source:
    Devlin et al., *BERT* (2019), §3; the reference code's ``BasicTokenizer`` and
    ``WordpieceTokenizer``, with the character classes of ``tokenizers``.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Final

from voxvec.tokens import cut_by_count

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["WordPiece"]

_LONGEST_WORD: Final = 100
_IDEOGRAPHS: Final = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class _Clean(dict[int, str]):
    """Drops control characters, makes white space a blank, sets ideographs apart; for `str.translate`."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        self[code] = self._replace(code, character)
        return self[code]

    @staticmethod
    def _replace(code: int, character: str) -> str:
        if character in "\t\n\r":
            return " "
        if code == 0xFFFD or unicodedata.category(character).startswith("C"):  # noqa: PLR2004 -- U+FFFD stands for what was unreadable
            return ""
        if character.isspace():
            return " "
        return f" {character} " if any(first <= code <= last for first, last in _IDEOGRAPHS) else character


class _Split(dict[int, str]):
    """Drops accents and sets punctuation apart; for `str.translate`, after decomposition."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        self[code] = self._replace(character)
        return self[code]

    @staticmethod
    def _replace(character: str) -> str:
        category = unicodedata.category(character)
        if category == "Mn":
            return ""
        symbol = character.isascii() and category.startswith("S")
        return f" {character} " if symbol or category.startswith("P") else character


_clean: Final = _Clean()
_split: Final = _Split()


class WordPiece:
    """A vocabulary, and how to spell texts with it.

    Args:
        vocabulary: Pieces in the order of their ids; pieces inside a word start with ``##``.
            It holds ``[UNK]``, ``[CLS]`` and ``[SEP]``.

    Raises:
        KeyError: One of these three is missing.
    """

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self._ids = {piece: number for number, piece in enumerate(vocabulary)}
        self._unknown = self._ids["[UNK]"]
        self._start, self._end = self._ids["[CLS]"], self._ids["[SEP]"]
        self._longest = max(map(len, vocabulary))
        self._spell = lru_cache(maxsize=1 << 16)(self._spell_anew)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, ``[CLS]`` first and ``[SEP]`` last."""
        return [self._start, *chain.from_iterable(map(self._spell, _words(text))), self._end]

    def count(self, text: str) -> int:
        """How many tokens a text is, with both special ones."""
        return 2 + sum(len(self._spell(word)) for word in _words(text))

    def cut(self, text: str, limit: int) -> list[str]:
        """The text in pieces of at most so many tokens each, with both special ones; see `voxvec.tokens.Tokenizer`."""
        return cut_by_count(text, limit, self.count)

    def _spell_anew(self, word: str) -> tuple[int, ...]:
        """The longest known piece, then the longest that goes on, and so forth."""
        pieces: list[int] = []
        start = 0
        while start < len(word) <= _LONGEST_WORD:
            prefix = "##" if start else ""
            ends = range(min(len(word), start + self._longest), start, -1)
            end = next((end for end in ends if prefix + word[start:end] in self._ids), None)
            if end is None:
                return (self._unknown,)
            pieces.append(self._ids[prefix + word[start:end]])
            start = end
        return tuple(pieces) or (self._unknown,)


def _words(text: str) -> Iterator[str]:
    decomposed = unicodedata.normalize("NFD", text.translate(_clean)).translate(_split)
    # Python writes a sigma at the end of a word differently, the vocabulary was made without that.
    return iter(decomposed.replace("Σ", "σ").lower().split())

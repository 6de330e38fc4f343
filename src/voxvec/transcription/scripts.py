"""How text is written: what may not be torn apart, how wide it is, where a sentence ends.

A *piece* is the least that a line or a cue may consist of: a word where words are set apart by
spaces, else a character with whatever clings to it. Nothing here knows a time.

Sources:
    Widths: Unicode Standard Annex 11, *East Asian Width*. Characters that may not begin or end a line:
    JIS X 4051, *Formatting rules for Japanese documents*, and GB/T 15834-2011 for Chinese.
"""

from __future__ import annotations

import unicodedata
from typing import NamedTuple

__all__ = ["UNSPACED", "Piece", "columns", "is_unspaced", "letters", "pieces", "strength"]

UNSPACED = frozenset({"bo", "ja", "km", "lo", "my", "th", "yue", "zh"})
"""Languages written without spaces between words."""

_NEVER_FIRST = frozenset("、。，．・：；？！‼⁇⁈⁉゛゜ヽヾゝゞ々〻ー’”）〕］｝〉》」』】〙〗〟»›,.:;?!)]}%‰℃…‥～~")
_SMALL = frozenset("ぁぃぅぇぉっゃゅょゎゕゖァィゥェォッャュョヮヵヶ")  # kana that sound with the one before
_NEVER_LAST = frozenset("‘“（〔［｛〈《「『【〘〖〝«‹([{$£¥￥＄￡#＃")
_THAI_FIRST = frozenset("เแโใไເແໂໃໄ")  # vowels of Thai and Lao that are written before their consonant
_THAI_LAST = frozenset("ะาำๅฯๆະາຳຯໆ")  # and those, and signs, that are written behind it
_JOINERS = frozenset("\u200d\u2060\ufeff")
_STOPS = frozenset(".!?。！？…‥؟।॥។")
_COMMAS = frozenset(",;:、，；：،؛—–")
_CLOSERS = frozenset("\"'”’」』）)]】》›»")
# A full stop behind these ends no sentence.
_SHORT = frozenset(
    {"mr", "mrs", "ms", "dr", "st", "prof", "vs", "etc", "jr", "sr", "no", "fig", "e.g", "i.e", "z.b", "m"}
)


class Piece(NamedTuple):
    """What may not be torn apart.

    Attributes:
        text: Without space around it.
        spaced: Whether a space stands before it.
    """

    text: str
    spaced: bool


def is_unspaced(language: str | None) -> bool:
    """Whether the language is written without spaces between words; False for None."""
    return (language or "").partition("-")[0] in UNSPACED


def columns(text: str) -> int:
    """Width of a line in columns: 2 for what East Asia sets wide, 0 for what is set onto the character before."""
    return sum(map(_width, text, " " + text))


def _width(char: str, before: str) -> int:
    if before == "\u200d" or unicodedata.category(char) in {"Mn", "Me", "Cf", "Cc"}:
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def letters(text: str) -> int:
    """How much there is to say: letters, digits and marks, wide ones twice."""
    return sum(_width(char, "") for char in text if unicodedata.category(char)[0] in "LNS")


def pieces(text: str, language: str | None) -> list[Piece]:
    """A text cut into what may not be torn apart.

    Args:
        text: Any text; runs of white space count as one space.
        language: Code of its language, if known.
    """
    split = _characters if is_unspaced(language) else _whole
    found: list[Piece] = []
    for word in text.split():
        parts = split(word)
        found += [Piece(part, spaced=not at and bool(found)) for at, part in enumerate(parts)]
    return found


def _whole(word: str) -> list[str]:
    """One piece; but a run of Chinese or Japanese is cut even amid a language that has spaces."""
    if sum(map(_is_ideograph, word)) > 8:  # noqa: PLR2004 -- longer than any word
        return _characters(word)
    return [word]


def _is_ideograph(char: str) -> bool:
    return "\u3040" <= char <= "\u30ff" or "\u3400" <= char <= "\u9fff"


def _characters(word: str) -> list[str]:
    found: list[str] = []
    for char in word:
        if found and _clings(found[-1], char):
            found[-1] += char
        else:
            found.append(char)
    return found


def _clings(before: str, char: str) -> bool:
    last = before[-1]
    return (
        char in _NEVER_FIRST | _SMALL | _JOINERS | _THAI_LAST
        or last in _JOINERS | _NEVER_LAST | _THAI_FIRST
        or unicodedata.category(char) in {"Mn", "Mc", "Me", "Cf", "Sk"}
        or (_is_western(last) and _is_western(char))
    )


def _is_western(char: str) -> bool:
    """Part of a Latin word or of a number, which are not torn apart amid characters either."""
    return char < "\u0590" and (char.isalnum() or char in "-_'./@&+%")


def strength(piece: str, following: Piece | None = None) -> int:
    """How well a cut behind a piece is placed: 3 behind a sentence, 2 behind a clause, 1 between words, 0 within one.

    Args:
        piece: What stands before the cut.
        following: What stands behind it; None at the end of the text.
    """
    bare = piece.rstrip("".join(_CLOSERS))
    if following is None:
        return 3
    if bare and bare[-1] in _STOPS:
        abbreviated = bare[-1] == "." and (bare[:-1].lower() in _SHORT or following.text[:1].islower())
        return 1 if abbreviated else 3
    if bare and bare[-1] in _COMMAS:
        return 2
    # Japanese words end in hiragana and begin with anything else, more often than not.
    return int(following.spaced or (_is_hiragana(piece[-1]) and not _is_hiragana(following.text[0])))


def _is_hiragana(char: str) -> bool:
    return "\u3041" <= char <= "\u309f"

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxvec.local.wordpiece import WordPiece

VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "un",
    "##aff",
    "##able",
    "##a",
    "run",
    "##ning",
    "cafe",
    ",",
    "!",
    "=",
    "σας",
    "σασ",
    "猫",
    "x",
    "a",
    "b",
]
spelling = WordPiece(VOCABULARY)


def pieces(text, limit=None):
    return " ".join(VOCABULARY[number] for number in spelling.encode(text, limit=limit)[1:-1])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unaffable", "un ##aff ##able"),
        ("Running, RUNNING!", "run ##ning , run ##ning !"),
        ("café CAFÉ cafe\u0301", "cafe cafe cafe"),
        ("a≠b", "a = b"),
        ("σας ΣΑΣ", "σας σασ"),
        ("x猫x", "x 猫 x"),
        ("a\x00\u200b\ufffd\ud800b", "[UNK]"),
        ("a\tb\nx\u00a0a", "a b x a"),
        ("unknown", "[UNK]"),
        ("[CLS]", "[UNK] [UNK] [UNK]"),
        ("", ""),
        (" \n", ""),
        ("a" * 101, "[UNK]"),
    ],
)
def test_words_are_spelled_with_the_longest_known_pieces(text, expected):
    assert pieces(text) == expected


@given(st.text(max_size=60), st.integers(2, 12))
def test_a_limit_keeps_the_beginning_and_both_special_tokens(text, limit):
    whole, cut = spelling.encode(text), spelling.encode(text, limit=limit)

    assert len(cut) == min(len(whole), limit)
    assert cut[:-1] == whole[: len(cut) - 1]
    assert (cut[0], cut[-1]) == (2, 3)
    assert spelling.count(text) == len(whole)


@given(st.text(max_size=40))
def test_any_text_costs_at_most_its_bytes_and_two(text):
    assert spelling.count(text) <= len(text.encode("utf-8", "surrogatepass")) + 2


def test_a_vocabulary_without_the_special_pieces_is_refused():
    with pytest.raises(KeyError, match="SEP"):
        WordPiece(["[UNK]", "[CLS]", "a"])


def test_the_real_vocabulary_gives_the_published_ids(installed):
    real = WordPiece((installed / "vocab.txt").read_text("utf-8").splitlines())
    table = json.loads((Path(__file__).parents[1] / "data" / "minilm.json").read_text("utf-8"))["rows"]

    assert [real.encode(row["text"], limit=256) for row in table] == [row["ids"] for row in table]

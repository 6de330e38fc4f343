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


def pieces(text):
    return " ".join(VOCABULARY[number] for number in spelling.encode(text)[1:-1])


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


@given(st.text(max_size=60))
def test_the_special_tokens_stand_at_both_ends_and_are_counted(text):
    ids = spelling.encode(text)

    assert (ids[0], ids[-1]) == (2, 3)
    assert spelling.count(text) == len(ids)


@given(st.text(st.characters(codec="utf-8") | st.sampled_from(" a.猫"), max_size=60), st.integers(40, 50))
def test_pieces_join_to_the_text_and_have_room_for_both_special_tokens(text, limit):
    made = spelling.cut(text, limit)

    assert "".join(made) == text
    assert all(len(spelling.encode(piece)) <= limit for piece in made)


def test_pieces_end_between_words():
    assert spelling.cut("unaffable running cafe", 6) == ["unaffable", " running cafe"]


@given(st.text(max_size=40))
def test_any_text_costs_at_most_its_bytes_and_two(text):
    assert spelling.count(text) <= len(text.encode("utf-8", "surrogatepass")) + 2


def test_a_vocabulary_without_the_special_pieces_is_refused():
    with pytest.raises(KeyError, match="SEP"):
        WordPiece(["[UNK]", "[CLS]", "a"])


def cut(ids, limit):
    """What sentence-transformers does to a text that is too long."""
    return ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]]


def test_the_real_vocabulary_gives_the_published_ids(installed):
    real = WordPiece((installed / "vocab.txt").read_text("utf-8").splitlines())
    table = json.loads((Path(__file__).parents[1] / "data" / "minilm.json").read_text("utf-8"))["rows"]

    assert [cut(real.encode(row["text"]), 256) for row in table] == [row["ids"] for row in table]

import gzip
import importlib.util
import json
import re
import socket
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxvec import tokens
from voxvec.errors import ConfigError, InputError

tiktoken = pytest.importorskip("tiktoken")

COUNTED = json.loads(Path(__file__).with_name("data").joinpath("tokens.json").read_text("utf-8"))["texts"]
KOREAN = "안녕하세요, 세계! 한국어 토큰 수를 정확하게 세어 봅시다. 임베딩 요청은 8192 토큰을 넘을 수 없습니다."
FAMILY = "👨‍👩‍👧‍👦"

names = st.sampled_from(["cl100k_base", "wordpiece", "sentencepiece", None])
pieces = st.sampled_from([" ", "\r\n", "word", ". ", "한국", "\u1112\u1161", FAMILY, "🇰🇷", "e\u0301", "𒀀", "क्ष", "。"])
# Hypothesis leaves out surrogates; callers refuse them.
texts = st.text(st.characters(codec="utf-8")) | st.lists(pieces, max_size=60).map("".join)


def joined(made):
    return "".join(made)


@pytest.fixture(scope="module")
def cl100k():
    return tokens.exact("cl100k_base")


@pytest.fixture
def lent(monkeypatch):
    """What is lent to this test, and to no other."""
    monkeypatch.setattr(tokens, "_lent", {})


@pytest.mark.parametrize("entry", [pytest.param(entry, id=entry["name"]) for entry in COUNTED])
def test_counts_equal_those_of_tiktoken_with_its_own_table(cl100k, entry):
    assert cl100k.count(entry["text"] * entry["times"]) == entry["tokens"]


def test_a_korean_sentence_has_the_known_number_of_tokens(cl100k):
    assert cl100k.count(KOREAN) == 62


def test_a_million_blanks_before_a_word_are_counted_where_tiktoken_itself_panics(cl100k):
    # 7,813 tokens for all blanks but the last, which belongs to the word.
    assert cl100k.count(" " * 1_000_000 + "word") == 7_813 + 1


@given(st.text(st.sampled_from(" \t\n\r\x1c\u3000\xa0\u2028a1!'한")))
def test_parts_around_long_blanks_have_as_many_tokens_as_the_whole(text):
    encode = tokens.exact("cl100k_base")._encode
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "_LONG", 1)
        patch.setattr(tokens, "_BLANKS", tokens._BLANKS.replace("100000", "2"))

        assert tokens.exact("cl100k_base").count(text) == len(encode(text))


def test_importing_compiles_no_pattern(monkeypatch):
    def refuse(*_):
        raise AssertionError("a pattern was compiled")

    spec = importlib.util.find_spec("voxvec.tokens")
    fresh = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(re, "compile", refuse)

    spec.loader.exec_module(fresh)
    assert fresh.bound("cl100k_base", 5) == 5


def test_blanks_are_the_white_space_of_tiktoken_without_line_ends():
    probe = tiktoken.Encoding(
        "probe", pat_str=r"\s", mergeable_ranks={bytes([byte]): byte for byte in range(256)}, special_tokens={}
    )
    everything = "".join(map(chr, [*range(0xD800), *range(0xE000, sys.maxunicode + 1)]))

    assert re.findall(f"{tokens._BLANK}|[\r\n]", everything) == list(probe.decode(probe.encode_ordinary(everything)))


@given(names, texts)
def test_the_bound_is_never_below_the_exact_count(name, text):
    assert tokens.bound(name, len(text.encode())) >= tokens.exact("cl100k_base").count(text)


def test_the_bound_leaves_room_for_what_a_tokenizer_adds():
    assert [tokens.bound(name, 10) for name in ("cl100k_base", "wordpiece", "unigram", None)] == [10, 12, 13, 13]


def test_no_character_becomes_more_wordpiece_characters_than_it_has_bytes():
    for char in map(chr, [*range(0xD800), *range(0xE000, 0x30000)]):  # nothing beyond is ever decomposed
        bare = (part for part in unicodedata.normalize("NFD", char) if unicodedata.category(part) != "Mn")
        assert len("".join(bare).lower()) <= len(char.encode()), hex(ord(char))


@given(texts, st.integers(4, 40))
def test_exact_pieces_join_to_the_text_and_keep_the_limit(text, limit):
    tokenizer = tokens.exact("cl100k_base")

    made = tokenizer.cut(text, limit)

    assert joined(made) == text
    assert all(0 < tokenizer.count(piece) <= limit for piece in made)


@given(texts, st.integers(7, 60), names)
def test_bounded_pieces_join_to_the_text_and_keep_the_limit(text, limit, name):
    made = tokens.cut_by_bound(text, limit, name)

    assert joined(made) == text
    assert all(piece and tokens.bound(name, len(piece.encode())) <= limit for piece in made)


@pytest.mark.parametrize(("size", "many"), [(8191, 1), (8192, 1), (8193, 2)])
def test_a_text_is_cut_only_above_the_limit(cl100k, size, many):
    text = " cat" * size
    assert cl100k.count(text) == size

    made = cl100k.cut(text, 8192)

    assert len(made) == many
    assert joined(made) == text


def test_pieces_come_close_to_the_limit(cl100k):
    made = cl100k.cut(KOREAN * 2000, 8192)

    assert all(7600 <= cl100k.count(piece) <= 8192 for piece in made[:-1])


def test_a_text_that_is_dense_here_and_sparse_there_is_cut_all_the_same(cl100k):
    text = "𒀀𒀁" * 500 + " " * 50_000 + "word " * 2000 + "a" * 20_000 + "𒀀"

    made = cl100k.cut(text, 500)

    assert joined(made) == text
    assert max(map(cl100k.count, made)) <= 500
    assert sum(cl100k.count(piece) > 400 for piece in made) >= len(made) - 2


def test_no_crumb_is_left_at_the_end(cl100k):
    made = cl100k.cut(" cat" * 16_300, 8192)

    assert len(made) == 2
    assert all(8000 < cl100k.count(piece) <= 8192 for piece in made)


def test_the_empty_text_has_no_pieces(cl100k):
    assert cl100k.cut("", 10) == []
    assert tokens.cut_by_bound("", 10, None) == []


def test_a_piece_ends_with_a_sentence_where_one_ends_near_the_limit():
    text = "The first sentence is this. The second one is longer."

    assert tokens.cut_by_bound(text, 33, "cl100k_base")[0] == "The first sentence is this."


def test_a_piece_ends_with_a_word_where_no_sentence_ends():
    made = tokens.cut_by_bound("alpha beta gamma delta epsilon", 14, "cl100k_base")

    assert made == ["alpha beta", " gamma delta", " epsilon"]


def test_a_piece_ends_with_a_sentence_in_a_script_without_blanks():
    assert tokens.cut_by_bound("名前はない。どこで生れたか。", 24, "cl100k_base")[0] == "名前はない。"


@pytest.mark.parametrize(
    "visible",
    [
        pytest.param("e\u0301\u0323", id="combining marks"),
        pytest.param("\r\n", id="line end"),
        pytest.param(FAMILY, id="joined emoji"),
        pytest.param("❤\ufe0f", id="variation selector"),
        pytest.param("👍🏽", id="skin tone"),
        pytest.param("🇰🇷", id="flag"),
        pytest.param("🏴\U000e0067\U000e0062\U000e0065\U000e007f", id="tag sequence"),
        pytest.param("\u1112\u1161\u11ab", id="jamo"),
        pytest.param("\u1100가", id="leading jamo and syllable"),
        pytest.param("क्षि", id="conjunct"),
        pytest.param("กำ", id="Thai vowel"),
        pytest.param("ｶﾞ", id="half-width voiced kana"),
    ],
)
def test_no_visible_character_is_cut(cl100k, visible):
    text = visible * 50
    for limit in range(40, 60):
        for made in (cl100k.cut(text, limit), tokens.cut_by_bound(text, limit, "cl100k_base")):
            assert joined(made) == text
            assert max(map(cl100k.count, made)) <= limit
            assert all(piece == visible * (len(piece) // len(visible)) for piece in made)


def test_a_visible_character_longer_than_the_limit_is_cut_between_its_parts(cl100k):
    text = "e" + "\u0301" * 100

    for made in (cl100k.cut(text, 10), tokens.cut_by_bound(text, 10, "cl100k_base")):
        assert joined(made) == text
        assert len(made) > 5


@pytest.mark.parametrize("limit", [-5, 0, 3])
def test_a_character_above_the_limit_is_refused(cl100k, limit):
    with pytest.raises(InputError, match=rf"limit is {limit}; nothing was sent"):
        tokens.cut_by_bound("𒀀", limit, "cl100k_base")
    with pytest.raises(InputError, match="nothing was sent"):
        cl100k.cut("𒀀", min(limit, 2))


def test_nothing_is_downloaded(monkeypatch):
    def unreachable(*_args, **_kwargs):
        raise OSError("the network is unreachable")

    monkeypatch.setattr(socket, "socket", unreachable)
    monkeypatch.setattr("tiktoken.load.read_file", unreachable)
    tokens._cl100k.cache_clear()

    assert tokens.exact("cl100k_base").count(KOREAN) == 62


def test_the_tokenizer_is_made_once_and_serves_all_threads(cl100k):
    def count(_):
        return tokens.exact("cl100k_base").count(KOREAN)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(count, range(64))) == {62}
    assert tokens.exact("cl100k_base") is tokens.exact("cl100k_base")


@pytest.mark.parametrize("name", [None, "", "wordpiece", "o200k_base", "CL100K_BASE"])
def test_other_tokenizers_are_not_at_hand(lent, name):
    assert tokens.exact(name) is None


class Letters:
    """A tokenizer whose tokens are letters, with one before them."""

    def count(self, text):
        return 1 + len(text)

    def cut(self, text, limit):
        return tokens.cut_by_count(text, limit, self.count)


def test_a_tokenizer_that_somebody_lends_is_at_hand_from_then_on(lent):
    asked, letters = [], Letters()
    tokens.provide("letters", lambda: asked.append("load") or letters)

    assert asked == []
    assert tokens.exact("letters") is letters
    assert tokens.exact("other") is None
    assert tokens.exact("letters").cut("one. two three", 6) == ["one.", " two", " thre", "e"]


def test_a_lent_tokenizer_that_is_not_available_yet_is_asked_for_again(lent):
    found = [ConfigError("not installed"), letters := Letters()]

    def load():
        if isinstance(first := found.pop(0), ConfigError):
            raise first
        return first

    tokens.provide("letters", load)

    assert [tokens.exact("letters"), tokens.exact("letters")] == [None, letters]


def test_who_lends_last_is_asked(lent):
    first, last = Letters(), Letters()
    tokens.provide("letters", lambda: first)
    tokens.provide("letters", lambda: last)

    assert tokens.exact("letters") is last


def test_voxvec_s_own_tokenizer_is_not_replaced(lent):
    with pytest.raises(ConfigError, match="cl100k_base comes with voxvec"):
        tokens.provide("cl100k_base", Letters)

    assert tokens.exact("cl100k_base").count(KOREAN) == 62


@given(texts, st.integers(2, 40))
def test_pieces_by_any_count_join_to_the_text_and_keep_the_limit(text, limit):
    made = Letters().cut(text, limit)

    assert joined(made) == text
    assert all(1 < Letters().count(piece) <= limit for piece in made)


def test_without_tiktoken_there_is_only_the_bound(monkeypatch):
    monkeypatch.setitem(sys.modules, "tiktoken", None)

    assert tokens.exact("cl100k_base") is None
    assert tokens.bound("cl100k_base", 5) == 5
    assert tokens.cut_by_bound("a b c", 2, "cl100k_base") == ["a", " b", " c"]


@pytest.mark.parametrize(
    "packed", [pytest.param(b"no gzip", id="not packed"), pytest.param(gzip.compress(b"YQ== 0\n"), id="other table")]
)
def test_a_damaged_table_is_refused(packed):
    with pytest.raises(ConfigError, match="damaged; nothing was sent; reinstall"):
        tokens._ranks(packed)

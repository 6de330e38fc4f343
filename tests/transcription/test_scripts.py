import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxvec.transcription.scripts import Piece, columns, is_unspaced, letters, pieces, strength


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("", 0),
        ("abc", 3),
        ("안녕", 4),
        ("日本。", 6),
        ("é", 1),
        ("e\u0301", 1),
        ("ｶﾅ", 2),
        ("👩‍👧", 2),
        ("🇰", 1),
        ("a\u200bb", 2),
    ],
)
def test_width_is_in_columns_not_in_characters(text, width):
    assert columns(text) == width


def test_marks_and_spaces_are_nothing_to_say():
    assert letters("Well, 안녕!") == 4 + 4


@given(st.text(), st.sampled_from(["en", "ja", "th", "ko", None]))
def test_pieces_make_up_the_text_again(text, language):
    found = pieces(text, language)

    whole = "".join(" " * piece.spaced + piece.text for piece in found)
    assert whole == " ".join(text.split())
    assert all(piece.text for piece in found)


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Hello, big world", "en", "Hello,|big|world"),
        ("GPT-5는 정말 좋다", "ko", "GPT-5는|정말|좋다"),
        ("日本で。", "ja", "日|本|で。"),
        ("「ありがと」って", "ja", "「あ|り|が|と」っ|て"),
        ("キャリアー", "ja", "キャ|リ|アー"),
        ("東京のOpenAI社は3.5%です", "ja", "東|京|の|OpenAI|社|は|3.5%|で|す"),
        ("กำลัง", "th", "กำ|ลั|ง"),
        ("我们在 Berlin 见", "zh", "我|们|在|Berlin|见"),
        ("see 今日はとても良い天気 there", "en", "see|今|日|は|と|て|も|良|い|天|気|there"),
    ],
)
def test_what_may_not_be_torn_apart_stays_together(text, language, expected):
    assert "|".join(piece.text for piece in pieces(text, language)) == expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("end.", "Then", 3),
        ('end."', "Then", 3),
        ("끝.", "다음", 3),
        ("Mr.", "Smith", 1),
        ("approx.", "ten", 1),
        ("then,", "go", 2),
        ("one", "two", 1),
        ("”", "two", 1),
        ("end", None, 3),
    ],
)
def test_a_cut_is_best_behind_a_sentence_then_a_clause_then_a_word(before, after, expected):
    assert strength(before, None if after is None else Piece(after, spaced=True)) == expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [("。", "次", 3), ("、", "次", 2), ("は", "東", 1), ("東", "京", 0), ("と", "て", 0)],
)
def test_characters_are_best_cut_behind_marks_then_where_a_word_seems_to_end(before, after, expected):
    assert strength(before, Piece(after, spaced=False)) == expected


def test_only_some_languages_go_without_spaces():
    assert is_unspaced("ja")
    assert is_unspaced("zh-TW")
    assert not is_unspaced("ko")
    assert not is_unspaced(None)

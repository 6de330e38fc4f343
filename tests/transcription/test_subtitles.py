import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxvec import InputError
from voxvec.transcription.subtitles import Cue, markdown, parse, srt, timestamp, tsv, vtt

times = st.floats(-10, 400_000, allow_nan=False)
cues = st.lists(st.builds(Cue, times, times, st.text(), st.none() | st.text()), max_size=8)
TIMING = re.compile(r"(\d{2,}):([0-5]\d):([0-5]\d)[.,](\d{3}) --> (\d{2,}):([0-5]\d):([0-5]\d)[.,](\d{3})")


def timings(text):
    found = [list(map(int, match.groups())) for match in map(TIMING.fullmatch, text.split("\n")) if match]
    return [tuple(((h * 60 + m) * 60 + s) * 1000 + ms for h, m, s, ms in (row[:4], row[4:])) for row in found]


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0, "00:00:00.000"),
        (-1, "00:00:00.000"),
        (59.9994, "00:00:59.999"),
        (59.9996, "00:01:00.000"),
        (3599.9999, "01:00:00.000"),
        (0.1 + 0.2, "00:00:00.300"),
        (3661.5, "01:01:01.500"),
        (100 * 3600, "100:00:00.000"),
    ],
)
def test_a_time_is_rounded_before_it_is_split_into_minutes(seconds, written):
    assert timestamp(seconds) == written
    assert timestamp(seconds, separator=",") == written.replace(".", ",")


def test_subrip_has_numbers_commas_and_names():
    text = srt([Cue(2, 3.5, "Yes & no.", "Bo"), Cue(0, 1, "안녕하세요\n여러분")])

    assert (
        text
        == "1\n00:00:00,000 --> 00:00:01,000\n안녕하세요\n여러분\n\n2\n00:00:02,000 --> 00:00:03,500\nBo: Yes & no.\n"
    )


def test_webvtt_has_a_header_points_and_voices():
    text = vtt([Cue(0, 1, "Hi.", "A <B> & C"), Cue(1, 2, "Yo.")])

    assert text == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n<v A &lt;B&gt; &amp; C>Hi.\n\n00:00:01.000 --> 00:00:02.000\nYo.\n"
    )


def test_no_cues_make_an_empty_file():
    assert srt([]) == ""
    assert vtt([Cue(0, 1, " \n\x00")]) == "WEBVTT\n"


@pytest.mark.parametrize(
    ("text", "in_srt", "in_vtt"),
    [
        ("a --> b", "a → b", "a --&gt; b"),
        ("a ----> b", "a → b", "a ----&gt; b"),
        ("1 < 2 & <i>3</i>", "1 < 2 & <i>3</i>", "1 &lt; 2 &amp; &lt;i&gt;3&lt;/i&gt;"),
        ("one\r\n\r\n\ntwo\rthree\u2028four", "one\ntwo\nthree\nfour", "one\ntwo\nthree\nfour"),
        ("\ufeffmarked", "marked", "marked"),
        ("be\x07ll\ttab\x00", "bell tab", "bell tab"),
        ("\u202bשלום\u202c", "\u202bשלום\u202c", "\u202bשלום\u202c"),
        ("half \ud800", "half \ufffd", "half \ufffd"),
        ("👩‍👧", "👩‍👧", "👩‍👧"),
        ("WEBVTT", "WEBVTT", "WEBVTT"),
    ],
)
def test_a_text_cannot_break_out_of_its_cue(text, in_srt, in_vtt):
    assert srt([Cue(0, 1, text)]) == f"1\n00:00:00,000 --> 00:00:01,000\n{in_srt}\n"
    assert vtt([Cue(0, 1, text)]) == f"WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n{in_vtt}\n"


def test_a_speaker_cannot_break_out_either():
    assert srt([Cue(0, 1, "Hi.", "A\n\n-->B")]) == "1\n00:00:00,000 --> 00:00:01,000\nA →B: Hi.\n"
    assert "<v A --&gt;B>Hi.\n" in vtt([Cue(0, 1, "Hi.", "A\n\n-->B")])
    assert "\nHi.\n" in vtt([Cue(0, 1, "Hi.", "\n")])


def test_an_overlap_ends_where_the_next_cue_begins_and_equal_starts_stay():
    text = srt([Cue(0, 5, "a"), Cue(3, 6, "b"), Cue(3, 7, "c"), Cue(5, 8, "d")])

    assert timings(text) == [(0, 3000), (3000, 5000), (3000, 5000), (5000, 8000)]


def test_cues_past_the_end_and_without_length_are_still_shown():
    text = vtt([Cue(9, 99, "a"), Cue(12, 13, "b"), Cue(-3, -2, "c"), Cue(5, 5, "d")], duration=10)

    assert timings(text) == [(0, 1), (5000, 5001), (9000, 9999), (9999, 10000)]


@given(cues, st.none() | st.floats(0.001, 500_000))
def test_cues_are_in_order_within_the_recording_and_all_there(listed, duration):
    limit = float("inf") if duration is None else max(1, round(duration * 1000))
    for text in (srt(listed, duration=duration), vtt(listed, duration=duration)):
        found = timings(text)

        assert all(0 <= start < end <= limit for start, end in found)
        assert all(a[0] == b[0] or a[1] <= b[0] for a, b in product(found, repeat=2) if a < b)
        assert text.count("-->") == len(found)
        assert text.encode().decode() == text


@given(st.text(), st.none() | st.text())
def test_a_cue_never_holds_a_blank_line(text, speaker):
    for written in (srt([Cue(0, 1, text, speaker)]), vtt([Cue(0, 1, text, speaker)]).removeprefix("WEBVTT\n\n")):
        assert "\n\n" not in written
        assert "\r" not in written
        assert written.splitlines() == written.split("\n")[:-1]


# -- reading back, tables, Markdown

safe = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf", "Zl", "Zp", "Zs"]), min_size=1, max_size=20)
apart = st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 5000)), max_size=6)


@given(apart, st.data())
def test_what_was_written_is_read_back(lengths, data):
    listed, at = [], 0
    for length, pause in lengths:
        speaker = data.draw(st.none() | safe)
        listed.append(Cue(at / 1000, (at + length) / 1000, data.draw(safe), speaker))
        at += length + pause

    assert parse(vtt(listed)) == listed
    assert [(cue.start, cue.end) for cue in parse(srt(listed))] == [(cue.start, cue.end) for cue in listed]


def test_subrip_of_others_is_read():
    text = (
        "\ufeff1\r\n00:00:01,5 --> 00:00:02,000 X1:10\r\nHello\r\nthere\r\n\r\n\r\n"
        "2\r\n1:00:00.250 --> 1:00:01.000\r\n\r\n"
    )

    assert parse(text) == [Cue(1.5, 2.0, "Hello\nthere"), Cue(3600.25, 3601.0, "")]


def test_webvtt_of_others_is_read():
    text = (
        "WEBVTT - title\n\nSTYLE\n::cue { color: red }\n\nNOTE 00:00 is early\n\nintro\n"
        "00:01.000 --> 00:02.000 align:left\n"
        "<v.loud Mary &amp; Bo>I <i>am</i> &lt;here&gt;</v>&nbsp;!\n\n01:00:00.000 --> 01:00:01.000\nplain"
    )

    assert parse(text) == [Cue(1, 2, "I am <here> !", "Mary & Bo"), Cue(3600, 3601, "plain")]


def test_what_is_no_subtitle_file_is_refused():
    assert parse("") == []
    with pytest.raises(InputError, match="no cue can be read"):
        parse("00:00:0x,000 --> 00:00:02,000\nHello\n")


def test_a_table_has_whole_milliseconds_and_no_tabs_in_its_texts():
    assert (
        tsv([Cue(0, 1.2345, "a\tb\nc"), Cue(2, 3, "d", "Bo")])
        == "start\tend\ttext\n0\t1234\ta b c\n2000\t3000\tBo: d\n"
    )


def test_markdown_has_a_paragraph_for_each_cue_and_no_accidental_markup():
    assert markdown([Cue(59.9996, 61, "a *b* [c]"), Cue(3661, 3662, "d", "B_o")]) == (
        "**00:01:00** a \\*b\\* \\[c\\]\n\n**01:01:01** B\\_o: d\n"
    )

import json
import os
import pickle
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import voxvec.transcription
from voxvec.errors import ConfigError, InputError
from voxvec.transcription.transcript import Segment, Transcript, Usage, Word

hello = Word("안녕", 0.5, 1.0, "server", 0.9)
full = Transcript(
    text="안녕 여러분. Bye.",
    segments=(
        Segment("안녕 여러분.", 0.5, 2.0, "server", "A", (hello,), -0.2, 0.01, 1.1),
        Segment("Bye.", 3.0, 4.0, "server"),
    ),
    words=(hello,),
    language="ko",
    duration=5.0,
    usage=Usage(seconds=5.0, requests=1),
    cost=Decimal("0.000375"),
    model="m",
    warnings=("careful",),
)
guessed = Transcript(text="Hi.", segments=(Segment("Hi.", 0, 2, "estimated"),), model="m")

texts = st.text(st.characters(exclude_categories=["Cs"]))
times = st.floats(0, 1e6)
timings = st.sampled_from(["server", "speech", "estimated", "aligned"])
words = st.lists(st.builds(Word, texts, times, times, timings, st.none() | st.floats(0, 1), st.none() | texts)).map(
    tuple
)
segments = st.lists(st.builds(Segment, texts, times, times, timings, st.none() | texts, words), max_size=4).map(tuple)
transcripts = st.builds(
    Transcript,
    text=texts,
    segments=segments,
    words=words,
    language=st.none() | texts,
    duration=st.none() | times,
    usage=st.builds(Usage, seconds=st.none() | times, input_tokens=st.none() | st.integers(0), requests=st.integers(0)),
    cost=st.none() | st.decimals(0, 1000, places=6),
    model=texts,
    warnings=st.lists(texts).map(tuple),
    complete=st.booleans(),
    cached=st.booleans(),
)


def test_a_transcript_reads_as_its_text():
    assert str(full) == "안녕 여러분. Bye."


@pytest.mark.parametrize(
    ("a", "b", "found"),
    [
        (0, 10, [0, 1]),
        (0, 0.5, []),
        (0, 0.6, [0]),
        (1.9, 3.0, [0]),
        (2.0, 3.0, []),
        (3.9, 9, [1]),
        (4, 9, []),
        (1, 1, []),
    ],
)
def test_between_gives_the_segments_that_overlap_and_leaves_the_end_out(a, b, found):
    assert full.between(a, b) == tuple(full.segments[i] for i in found)


def test_between_finds_a_segment_without_length():
    instant = Transcript(text="x", segments=(Segment("x", 1, 1, "server"),), model="m")

    assert instant.between(1, 2) == instant.segments
    assert instant.between(0, 1) == ()


def test_between_refuses_an_end_before_its_beginning():
    with pytest.raises(ConfigError, match=r"between\(90, 60\) ends before it begins"):
        full.between(90, 60)


def test_subtitles_come_from_the_segments():
    assert full.to_srt().startswith("1\n00:00:00,500 --> 00:00:02,000\nA: 안녕 여러분.\n\n2\n")
    assert full.to_vtt().startswith("WEBVTT\n\n00:00:00.500 --> 00:00:02.000\n<v A>안녕 여러분.\n")


def test_estimated_times_make_no_subtitles_unless_allowed():
    for write in (guessed.to_srt, guessed.to_vtt):
        with pytest.raises(ConfigError, match=r"m gave no times.*estimated.*pass allow_estimated=True"):
            write()
        assert "00:00:02" in write(allow_estimated=True)


def test_a_text_without_segments_makes_no_subtitles():
    with pytest.raises(ConfigError, match="no segments"):
        Transcript(text="Hi.", model="m").to_srt(allow_estimated=True)

    assert Transcript(text="", model="m").to_srt() == ""


def test_plain_text_names_the_speakers_if_there_are_any():
    assert full.to_txt() == "A: 안녕 여러분.\nBye.\n"
    assert guessed.to_txt() == "Hi.\n"


@given(transcripts)
def test_json_gives_the_same_transcript_back(transcript):
    assert Transcript.from_json(transcript.to_json()) == transcript
    assert Transcript.from_json(transcript.to_json().encode()) == transcript


def test_json_is_readable_and_exact():
    written = json.loads(full.to_json())

    assert "안녕" in full.to_json()
    assert written["cost"] == "0.000375"
    assert written["segments"][0]["words"][0]["timing"] == "server"
    assert "speaker" not in written["segments"][1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "JSON: Invalid JSON"),
        ("[]", "JSON: "),
        ('{"text": "a"}', "model: Field required"),
        ('{"text": "a", "model": "m", "segments": [{"text": 1}]}', "segments.0.text: "),
    ],
)
def test_other_json_is_refused_naming_what_is_amiss(text, reason):
    with pytest.raises(InputError, match="no transcript as to_json") as caught:
        Transcript.from_json(text)

    assert reason in str(caught.value)


def test_a_transcript_survives_pickling():
    assert pickle.loads(pickle.dumps(full)) == full  # noqa: S301 -- our own bytes


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.srt", full.to_srt),
        ("a.VTT", full.to_vtt),
        ("a.b.txt", full.to_txt),
        ("a.tsv", full.to_tsv),
        ("a.md", full.to_md),
        ("한국어.json", full.to_json),
    ],
)
def test_the_suffix_decides_what_is_saved(tmp_path, name, write):
    full.save(tmp_path / name)
    full.save(str(tmp_path / name))

    assert (tmp_path / name).read_bytes() == write().encode()
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a", "a.docx", "srt"])
def test_another_suffix_is_refused_naming_all(tmp_path, name):
    with pytest.raises(ConfigError, match=r"\.srt, \.vtt, \.tsv, \.md, \.txt or \.json"):
        full.save(tmp_path / name)


def test_a_refusal_or_a_failure_leaves_the_old_file_alone(tmp_path, monkeypatch):
    target = tmp_path / "a.srt"
    target.write_text("old")

    with pytest.raises(ConfigError):
        guessed.save(target)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        guessed.save(target, allow_estimated=True)

    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_saved_file_has_the_usual_rights(tmp_path):
    usual = tmp_path / "usual"
    usual.touch()
    full.save(tmp_path / "a.txt")

    assert (tmp_path / "a.txt").stat().st_mode == usual.stat().st_mode


def test_a_missing_folder_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        full.save(tmp_path / "none" / "a.txt")


def test_the_room_shows_its_nouns_and_nothing_else():
    assert voxvec.transcription.Transcript is Transcript
    assert sorted(voxvec.transcription.__all__) == dir(voxvec.transcription)
    with pytest.raises(AttributeError, match="has no attribute 'Speech'"):
        voxvec.transcription.Speech  # noqa: B018 -- looking it up is the test

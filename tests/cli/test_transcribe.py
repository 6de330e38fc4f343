import io
import json
import wave

import numpy as np
import pytest

from voxvec.cli.transcribe import Format
from voxvec.local.exchange import json_reply

WORDS = [("the cat sleeps", 0.0, 1.5), ("a dog barks", 2.0, 3.5)]


@pytest.fixture
def spoken(server):
    server.say("the cat sleeps a dog barks", segments=WORDS, translation="le chat dort")
    return server


def test_the_text_goes_to_stdout_and_the_bill_to_stderr(spoken, run, talk):
    result = run("transcribe", talk)

    assert (result.exit_code, result.stdout) == (0, "the cat sleeps a dog barks\n")
    assert "1 request" in result.stderr
    assert spoken.requests[0].model == "gpt-transcribe"


def test_a_second_run_asks_nothing(spoken, run, talk):
    run("transcribe", talk)
    result = run("transcribe", talk)

    assert spoken.asked == 1
    assert "0 requests, 0 tokens, $0, 1 of 1 from the cache" in result.stderr


def test_without_the_cache_every_run_asks(spoken, run, talk, tmp_path):
    run("transcribe", talk, "--no-cache")
    run("transcribe", talk, "--no-cache")

    assert spoken.asked == 2
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("spoken")
@pytest.mark.parametrize(
    ("name", "start"),
    [("t.srt", "1\n00:00:00,000 --> 00:00:01,500\nthe cat"), ("t.vtt", "WEBVTT\n"), ("t.txt", "the"), ("t.json", "{")],
)
def test_the_name_of_the_output_decides_what_is_written(run, talk, home, name, start):
    result = run("transcribe", talk, "--model", "whisper-1", "-o", name)

    assert (result.exit_code, result.stdout) == (0, "")
    assert (home / name).read_text("utf-8").startswith(start)
    assert not list(home.glob(".*"))


@pytest.mark.parametrize("kind", list(Format))
def test_every_format_can_be_printed(spoken, run, talk, kind):
    result = run("transcribe", talk, "--model", "whisper-1", "--format", kind)

    assert result.exit_code == 0
    assert "the cat sleeps" in result.stdout


def test_a_format_can_be_written_under_a_name_that_tells_nothing(spoken, run, talk, home):
    assert run("transcribe", talk, "--model", "whisper-1", "--format", "srt", "-o", "subtitles").exit_code == 0
    assert "-->" in (home / "subtitles").read_text("utf-8")


def test_several_recordings_go_into_a_folder(spoken, run, talk, more_talk, home):
    (home / "out").mkdir()
    result = run("transcribe", talk, more_talk, "--model", "whisper-1", "--format", "srt", "-o", "out")

    assert result.exit_code == 0
    assert {file.name for file in (home / "out").iterdir()} == {"talk.srt", "more.srt"}


def test_several_texts_on_stdout_are_told_apart(spoken, run, talk, more_talk):
    assert run("transcribe", talk, more_talk).stdout.count("==> ") == 2


def test_json_holds_every_transcript_and_what_they_took(spoken, answer, talk, more_talk):
    found = answer("transcribe", talk, more_talk, "--model", "whisper-1")

    assert [each["file"] for each in found["transcripts"]] == [str(talk), str(more_talk)]
    assert found["transcripts"][0]["segments"][1]["start"] == 2.0
    assert (found["requests"], found["failed"]) == (2, [])


def test_json_says_where_a_transcript_was_written(spoken, answer, talk, home):
    found = answer("transcribe", talk, "-o", "t.txt")

    assert found["transcripts"][0]["output"] == "t.txt"
    assert (home / "t.txt").exists()


def test_one_bad_recording_does_not_stop_the_others(spoken, run, talk, home):
    (home / "bad.wav").write_bytes(b"")
    result = run("transcribe", "bad.wav", talk)

    assert result.exit_code == 1
    assert "the cat sleeps" in result.stdout
    assert "bad.wav" in result.stderr
    assert spoken.asked == 1


def test_json_names_what_failed_and_whether_it_was_billed(spoken, run, talk):
    result = run("transcribe", "missing.wav", talk, "--json")

    assert result.exit_code == 1
    [failed] = json.loads(result.stdout)["failed"]
    assert (failed["file"], failed["billed"]) == ("missing.wav", "no")


def test_a_wrong_key_stops_everything_at_once(server, run, talk, more_talk):
    server.fail_next(401, times=20)
    result = run("transcribe", talk, more_talk)

    assert result.exit_code == 1
    assert result.stderr.count("voxvec: ") == 1


def beeps(*spans, seconds=4.0, rate=16_000):
    """A recording with a sound from each of these times to the next [s], and silence around."""
    samples = np.zeros(int(seconds * rate))
    for start, end in spans:
        samples[int(start * rate) : int(end * rate)] = 8000 * np.sin(np.arange(int((end - start) * rate)) / 5)
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, rate, 0, "NONE", ""))
        out.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


def test_subtitles_of_a_model_without_times_begin_and_end_with_the_speech(spoken, run, talk):
    spoken.say("Good morning. This is all.")
    talk.write_bytes(beeps((0.5, 1.5), (2.5, 3.5)))
    result = run("transcribe", talk, "--format", "srt")

    assert result.exit_code == 0
    assert [row[:9] for row in result.stdout.splitlines() if "-->" in row] == ["00:00:00,", "00:00:02,"]
    assert "Good morning." in result.stdout


def test_subtitles_are_refused_where_no_speech_is_found_but_what_was_bought_is_kept(spoken, run, talk):
    result = run("transcribe", talk, "--format", "srt")

    assert result.exit_code == 1
    assert "--allow-estimated" in result.stderr
    assert run("transcribe", talk, "--format", "srt", "--allow-estimated").exit_code == 0
    assert spoken.asked == 1


@pytest.mark.usefixtures("spoken")
def test_tables_and_markdown_are_written_too(run, talk):
    assert run("transcribe", talk, "--format", "tsv").stdout.startswith("start\tend\ttext\n0\t")
    assert run("transcribe", talk, "--format", "md").stdout.startswith("**00:00:00** the cat")


def test_estimated_subtitles_can_be_allowed(spoken, run, talk):
    result = run("transcribe", talk, "--format", "srt", "--allow-estimated")

    assert result.exit_code == 0
    assert "00:00:00,000 --> 00:00:04,000" in result.stdout


@pytest.mark.parametrize("kind", ["srt", "vtt"])
def test_subtitles_are_refused_if_a_model_turns_out_to_give_no_times(spoken, run, talk, kind):
    spoken.mutate = lambda _, reply: json_reply({"text": json.loads(reply.body)["text"]})
    result = run("transcribe", talk, "--model", "whisper-1", "--format", kind)

    assert result.exit_code == 1
    assert "in the cache" in result.stderr
    assert result.stdout == ""


def test_a_recording_comes_from_stdin_too(spoken, run, answer, talk):
    run("transcribe", talk)
    found = answer("transcribe", "-", stdin=talk.read_bytes())

    assert [each["file"] for each in found["transcripts"]] == ["-"]
    assert (found["cached"], spoken.asked) == (1, 1)


def test_what_comes_from_stdin_has_a_name_in_a_folder(spoken, run, talk, home):
    (home / "texts").mkdir()
    run("transcribe", "-", talk, "-o", "texts", stdin=talk.read_bytes())

    assert {file.name for file in (home / "texts").iterdir()} == {"stdin.txt", "talk.txt"}


def test_nothing_on_stdin_is_an_empty_recording(server, run):
    result = run("transcribe", "-", stdin=b"")

    assert result.exit_code == 1
    assert "voxvec: -: the recording is empty" in result.stderr


def test_a_file_that_is_named_by_the_error_is_not_named_twice(server, run):
    result = run("transcribe", "missing.wav")

    assert result.stderr.count("missing.wav") == 1


def test_the_language_goes_to_the_model(spoken, run, talk):
    run("transcribe", talk, "--language", "Korean")

    assert "ko" in json.dumps(spoken.requests[0].fields["languages[]"])


def test_a_language_that_does_not_exist_is_refused(spoken, run, talk):
    result = run("transcribe", talk, "--language", "klingonish")

    assert (result.exit_code, spoken.asked) == (1, 0)


def test_translate_takes_a_model_that_translates(spoken, run, talk):
    result = run("translate", talk)

    assert (result.exit_code, result.stdout) == (0, "le chat dort\n")
    assert spoken.requests[0].endpoint == "audio/translations"


def test_a_model_that_does_not_translate_is_refused(spoken, run, talk):
    result = run("translate", talk, "--model", "gpt-transcribe")

    assert (result.exit_code, spoken.asked) == (1, 0)


def test_nothing_keyless_translates(run, talk):
    result = run("translate", talk)

    assert result.exit_code == 1
    assert "OPENAI_API_KEY" in result.stderr


@pytest.mark.usefixtures("talk", "more_talk")
@pytest.mark.parametrize(
    ("args", "reason"),
    [
        pytest.param(["talk.wav", "-o", "t.docx"], "end the name", id="unknown-suffix"),
        pytest.param(["talk.wav", "-o", "t.srt", "--format", "vtt"], "does not go into", id="suffix-and-format-differ"),
        pytest.param(["talk.wav", "more.wav", "-o", "t.srt"], "must be a folder", id="two-into-one"),
        pytest.param(["talk.wav", "more.wav", "--format", "srt"], "name a folder", id="two-subtitles-on-stdout"),
        pytest.param(["talk.wav", "sub/talk.wav", "-o", "out"], "share a file", id="same-name"),
        pytest.param(["talk.txt", "-o", "talk.txt"], "recording itself", id="onto-itself"),
        pytest.param(["talk.wav", "--format", "docx"], "docx", id="no-such-format"),
        pytest.param([], "Missing argument", id="no-file"),
    ],
)
def test_what_makes_no_sense_is_wrong_usage(spoken, run, home, args, reason):
    (home / "out").mkdir()
    result = run("transcribe", *args)

    assert result.exit_code == 2
    assert reason in " ".join(result.stderr.replace("│", " ").split())
    assert spoken.asked == 0


def test_an_output_that_cannot_be_written_is_refused_before_anything_is_sent(spoken, run, talk):
    result = run("transcribe", talk, "-o", "no/such/folder/t.txt")

    assert result.exit_code == 1
    assert "does not exist" in result.stderr
    assert spoken.asked == 0


def test_without_a_key_the_keyless_backend_answers_and_says_so(keyless, run, talk):
    keyless.say("hello there")
    result = run("transcribe", talk)

    assert result.stdout == "hello there\n"
    assert result.stderr.count("keyless backend") == 1
    assert "low accuracy" in result.stderr
    assert keyless.requests[0].model == "pocketsphinx-en-us"


def test_a_named_model_that_needs_a_key_never_falls_back(keyless, run, talk):
    result = run("transcribe", talk, "--model", "whisper-1")

    assert result.exit_code == 1
    assert "OPENAI_API_KEY" in result.stderr
    assert "pocketsphinx-en-us" in result.stderr
    assert keyless.asked == 0


def test_a_keyless_model_that_is_named_is_used_even_with_a_key(server, keyless, run, talk):
    keyless.say("hello there")
    result = run("transcribe", talk, "--model", "pocketsphinx-en-us")

    assert result.exit_code == 0
    assert "OPENAI_API_KEY" not in result.stderr
    assert keyless.requests[0].headers["host"] == "fake.voxvec"

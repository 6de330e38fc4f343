import json

import pytest


def test_a_plan_tells_requests_and_cost_and_sends_nothing(server, answer, home, talk):
    (home / "t.txt").write_text("kitten\ncat\nkitten\n")
    found = answer("plan", "t.txt", talk)

    texts, recording = found["files"]
    assert (texts["texts"], texts["distinct"], texts["requests"]) == (3, 2, 1)
    assert (recording["seconds"], recording["container"], recording["requests"]) == (4.0, "wav", 1)
    assert float(found["cost"]) == pytest.approx(float(texts["cost"]) + float(recording["cost"]))
    assert server.asked == 0


def test_what_is_cached_is_not_planned_again(server, answer, run, home, talk):
    (home / "t.txt").write_text("kitten\n")
    run("embed", "t.txt")
    run("transcribe", talk)

    assert (found := answer("plan", "t.txt", talk))["requests"] == 0
    assert [file["cached"] for file in found["files"]] == [1, 1]


def test_the_table_ends_in_a_total(server, run, home, talk):
    (home / "t.txt").write_text("kitten\n")
    lines = run("plan", "t.txt", talk).stdout.splitlines()

    assert lines[0].split() == ["file", "model", "size", "requests", "cached", "cost"]
    assert lines[-1].split()[:2] == ["total", "2"]


def test_a_single_file_needs_no_total(server, run, talk):
    assert "total" not in run("plan", talk).stdout


def test_a_plan_for_a_named_model_needs_no_key(answer, home, talk):
    (home / "t.txt").write_text("kitten\n")
    found = answer(
        "plan", "t.txt", talk, "--embedding-model", "text-embedding-3-large", "--transcription-model", "whisper-1"
    )

    assert [file["model"] for file in found["files"]] == ["text-embedding-3-large", "whisper-1"]


def test_blank_lines_are_refused_as_they_are_when_embedding(server, run, notes, talk):
    result = run("plan", notes, talk)

    assert (result.exit_code, result.stderr) == (1, run("embed", notes).stderr)
    assert str(talk) in result.stdout


def test_blank_lines_are_left_out_on_demand(server, answer, notes):
    assert answer("plan", notes, "--skip-blank")["files"][0]["texts"] == 3


def test_lines_that_are_too_long_are_refused_as_they_are_when_embedding(server, run, home):
    pytest.importorskip("tiktoken")
    (home / "long.txt").write_text("cat " * 9_000)
    result = run("plan", "long.txt")

    assert (result.exit_code, result.stdout, result.stderr) == (1, "", run("embed", "long.txt").stderr)


@pytest.mark.parametrize("data", [b"", b"not a recording", b"RIFF"])
def test_a_broken_recording_is_refused_as_it_is_when_transcribing(server, run, home, data):
    (home / "talk.flac").write_bytes(data)
    result = run("plan", "talk.flac")

    assert (result.exit_code, result.stderr) == (1, run("transcribe", "talk.flac").stderr)
    assert "talk.flac" in result.stderr


def test_json_names_what_would_be_refused(server, run, home, talk):
    (home / "empty.wav").write_bytes(b"")
    result = run("plan", "empty.wav", talk, "--json")
    found = json.loads(result.stdout)

    assert result.exit_code == 1
    assert [failed["file"] for failed in found["failed"]] == ["empty.wav"]
    assert [planned["file"] for planned in found["files"]] == [str(talk)]


def test_what_goes_wrong_for_every_file_stops_the_plan(server, run, home):
    (home / "t.txt").write_text("kitten\n")
    result = run("plan", "t.txt", "t.txt", "--embedding-model", "whisper-1")

    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)


def test_a_recording_from_stdin_is_planned(server, answer, talk):
    assert answer("plan", "-", stdin=talk.read_bytes())["files"][0]["seconds"] == 4.0


def test_one_text_is_not_several(server, run, home):
    (home / "t.txt").write_text("kitten\n")

    assert "1 text," in run("plan", "t.txt").stdout


def test_an_unknown_price_makes_an_unknown_total(server, run, talk):
    result = run("plan", talk, talk, "--transcription-model", "somebody-elses-model")

    assert result.stdout.count("cost unknown") == 3
    assert "not known to voxvec" in result.stderr


def test_an_unknown_price_is_null_for_machines(server, answer, talk):
    assert answer("plan", talk, "--transcription-model", "somebody-elses-model")["cost"] is None

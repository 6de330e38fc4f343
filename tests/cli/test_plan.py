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


def test_lines_that_would_be_refused_are_named(server, run, notes):
    result = run("plan", notes)

    assert result.exit_code == 0
    assert f"{notes}:2: " in result.stderr


def test_an_unknown_price_makes_an_unknown_total(server, run, talk):
    result = run("plan", talk, talk, "--transcription-model", "somebody-elses-model")

    assert result.stdout.count("cost unknown") == 3
    assert "not known to voxvec" in result.stderr


def test_an_unknown_price_is_null_for_machines(server, answer, talk):
    assert answer("plan", talk, "--transcription-model", "somebody-elses-model")["cost"] is None

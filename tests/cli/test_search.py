import pytest

SAID = [("the cat sleeps", 0.0, 1.5), ("a dog barks", 2.0, 3.5)]


@pytest.fixture
def spoken(server):
    server.say("the cat sleeps a dog barks", segments=SAID)
    return server


def test_a_line_is_found_by_its_place(server, run, notes):
    result = run("search", "a dog barks", "--in", notes, "-k", 1)

    assert result.exit_code == 0
    assert result.stdout.split() == [f"{notes}:3", "1.00", "a", "dog", "barks"]


def test_a_moment_is_found_by_its_times(spoken, run, talk):
    result = run("search", "a dog barks", "--in", talk, "-k", 1, "--transcription-model", "whisper-1")

    assert result.stdout.split() == [str(talk), "0:02.0-0:03.5", "1.00", "a", "dog", "barks"]


def test_times_that_nobody_measured_carry_a_tilde(spoken, run, talk):
    result = run("search", "a dog barks", "--in", talk)

    assert f"{talk} ~0:00.0-~0:04.0" in result.stdout
    assert "gave no times" in result.stderr


def test_texts_and_recordings_are_searched_together(spoken, answer, notes, talk):
    found = answer("search", "the cat sleeps", "--in", notes, talk, "--transcription-model", "whisper-1")

    best = found["hits"][:3]
    assert [hit["score"] for hit in best] == pytest.approx([1, 1, 1])
    assert [(hit.get("line"), hit.get("start")) for hit in best] == [(1, None), (4, None), (None, 0.0)]
    assert found["requests"] == spoken.asked == 3


def test_the_option_may_be_repeated(server, answer, notes, home):
    (home / "b.txt").write_text("kitten\n")
    found = answer("search", "kitten", "--in", notes, "--in", "b.txt")

    assert found["hits"][0]["file"] == "b.txt"


def test_a_second_search_asks_nothing(spoken, run, notes, talk):
    run("search", "cat", "--in", notes, talk)
    asked = spoken.asked
    result = run("search", "cat", "--in", notes, talk)

    assert spoken.asked == asked
    assert "0 requests" in result.stderr


def test_control_characters_of_a_file_do_not_reach_the_terminal(server, run, home):
    (home / "evil.txt").write_text("a \x1b[31mred\x07 cat\n")

    assert "\x1b" not in run("search", "cat", "--in", "evil.txt").stdout


def test_a_failure_of_the_query_costs_no_transcription(spoken, run, talk):
    spoken.fail_next(401)

    assert run("search", "cat", "--in", talk).exit_code == 1
    assert [asked.model for asked in spoken.requests] == ["text-embedding-3-small"]


@pytest.mark.parametrize("question", ["", "  "])
def test_an_empty_question_is_one_line(server, run, notes, question):
    result = run("search", question, "--in", notes)

    assert (result.exit_code, server.asked) == (1, 0)
    assert result.stderr == "voxvec: the question is empty; say what to look for. Nothing was sent\n"


def test_a_question_that_is_too_long_is_called_the_question(server, run, notes):
    pytest.importorskip("tiktoken")

    assert "voxvec: the question has " in run("search", "cat " * 9_000, "--in", notes).stderr


def test_the_usage_line_has_the_files_behind_the_option(run):
    assert "search QUERY --in FILE… [OPTIONS]\n" in run("search", "--help").stdout


def test_a_recording_from_stdin_is_searched(spoken, answer, talk):
    args = ("search", "a dog barks", "--in", "-", "--transcription-model", "whisper-1")

    assert answer(*args, stdin=talk.read_bytes())["hits"][0]["start"] == 2.0


def test_a_broken_recording_is_not_searched_as_a_text(server, run, home):
    (home / "talk.wav").write_text("RIFF, they said\n")
    result = run("search", "cat", "--in", "talk.wav")

    assert result.exit_code == 1
    assert "talk.wav" in result.stderr


def test_files_without_text_are_refused(server, run, home):
    (home / "empty.txt").write_text("\n \n")
    result = run("search", "cat", "--in", "empty.txt")

    assert result.exit_code == 1
    assert "no text" in result.stderr


def test_a_line_the_server_refuses_is_named(server, run, notes):
    run("search", "cat", "--in", notes, "-k", 1)
    server.fail_next(400, body={"error": {"message": "no", "type": "invalid_request_error", "code": None}})
    notes.write_text("new line\n")
    result = run("search", "cat", "--in", notes)

    assert result.exit_code == 1
    assert f"{notes}:1" in result.stderr


def test_a_text_that_begins_like_a_recording_is_a_text(server, answer, home):
    (home / "caff.txt").write_text("caffeine keeps cats awake\n")

    assert answer("search", "cat", "--in", "caff.txt")["hits"][0]["line"] == 1


def test_without_a_key_one_line_says_so(keyless, run, notes, talk):
    keyless.say("hello there", segments=[("hello there", 0.0, 1.0)])
    result = run("search", "hello there", "--in", notes, talk)

    assert result.exit_code == 0
    assert result.stderr.count("keyless backend") == 1


def test_without_a_file_it_is_wrong_usage(run):
    assert run("search", "cat").exit_code == 2

import pytest

from voxvec import local
from voxvec.local import weights

DEMO = local.demo_recording()
FIND = weights.find


@pytest.fixture
def radio(keyless):
    """A backend that hears the bundled recording without a fault."""
    segments = [(line.text, line.start, line.end) for line in DEMO.lines]
    keyless.say(" ".join(line.text for line in DEMO.lines), segments=segments)
    return keyless


@pytest.fixture
def without_weights(radio, monkeypatch):
    """The same backend, on a machine where the weights are not installed."""
    monkeypatch.setattr(weights, "find", FIND)
    return monkeypatch


def test_the_demo_shows_segments_answers_and_what_it_took(radio, run):
    result = run("demo")

    assert result.exit_code == 0
    assert all(line.text in result.stdout for line in DEMO.lines)
    assert all(question.text in result.stdout for question in DEMO.questions)
    assert result.stdout.count("next best") == 3
    assert "3 requests" in result.stdout
    assert "0 of 12 from the cache" in result.stdout
    assert radio.asked == 3


def test_the_second_demo_makes_no_request_and_says_so(radio, run):
    run("demo")
    result = run("demo")

    assert radio.asked == 3
    assert "0 requests, 0 tokens, $0, 12 of 12 from the cache" in result.stdout
    assert "Everything was in the cache" in result.stdout


def test_without_the_cache_it_asks_again(radio, run):
    run("demo", "--no-cache")
    run("demo", "--no-cache")

    assert radio.asked == 6


def test_a_demo_pays_nobody_although_there_is_a_key(radio, run, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789abcdef")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")

    assert run("demo").exit_code == 0


def test_online_it_uses_the_key(server, run):
    server.say("the cat sleeps")
    result = run("demo", "--online", "--ask", "Who sleeps?")

    assert result.exit_code == 0
    assert {asked.model for asked in server.requests} == {"gpt-transcribe", "text-embedding-3-small"}
    assert "Who sleeps?" in result.stdout
    assert "~" not in result.stdout  # the times are those of the speech in the recording


def test_online_without_a_key_is_refused(run):
    result = run("demo", "--online")

    assert result.exit_code == 1
    assert "OPENAI_API_KEY" in result.stderr


def test_your_own_recording_and_question(keyless, answer, talk):
    keyless.say("the cat sleeps", segments=[("the cat sleeps", 0.5, 1.5)])
    found = answer("demo", "--audio", talk, "--ask", "the cat sleeps")

    [reply] = found["answers"]
    assert (reply["segment"], reply["start"], reply["runner_up"]) == (0, 0.5, None)
    assert reply["score"] == pytest.approx(1)
    assert (found["duration"], found["requests"]) == (4.0, 2)


def test_a_single_segment_has_no_runner_up_to_show(keyless, run, talk):
    keyless.say("the cat sleeps", segments=[("the cat sleeps", 0.5, 1.5)])

    assert "next best" not in run("demo", "--audio", talk, "--ask", "Who?").stdout


def test_your_own_recording_without_a_question_is_wrong_usage(run, talk):
    result = run("demo", "--audio", talk)

    assert result.exit_code == 2
    assert "--ask" in result.stderr


def test_a_recording_without_speech_is_no_answer(keyless, run, talk):
    keyless.say("")
    result = run("demo", "--audio", talk, "--ask", "Who?")

    assert result.exit_code == 1
    assert "no speech" in result.stderr


def test_the_warning_about_the_recognizer_names_the_recording(radio, run):
    assert "voxvec: town-radio.wav: offline, English only, low accuracy\n" in run("demo").stderr


def test_an_empty_question_is_one_line(radio, run):
    result = run("demo", "--ask", "")

    assert (result.exit_code, radio.asked, result.stderr.count("\n")) == (1, 0, 1)
    assert "the question is empty" in result.stderr


def test_missing_weights_are_told_before_anything_is_asked(radio, run, without_weights):
    result = run("demo")

    assert (result.exit_code, radio.asked) == (1, 0)
    assert "voxvec local install" in result.stderr


def test_what_is_in_the_cache_needs_no_weights(radio, run, without_weights):
    with without_weights.context() as there:
        there.setattr(weights, "find", lambda: None)
        run("demo")
    result = run("demo")

    assert result.exit_code == 0
    assert "Everything was in the cache" in result.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_the_real_demo_answers_all_three_questions(answer):
    pytest.importorskip("pocketsphinx", reason="the recogniser has no wheel for this Python")
    found = answer("demo")

    expected = [DEMO.lines[question.line] for question in DEMO.questions]
    for reply, line in zip(found["answers"], expected, strict=True):
        assert line.start - 0.5 < reply["start"] < reply["end"] < line.end + 0.5
        assert reply["score"] > 2 * reply["runner_up"]
    assert answer("demo")["requests"] == 0

import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import threading
import warnings
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import voxvec.__main__ as entry
from voxvec.cli import app, doctor, screen
from voxvec.cli.bill import Bill
from voxvec.errors import VoxvecWarning
from voxvec.testing import FakeOpenAI

VERBS = ["demo", "transcribe", "translate", "embed", "search", "models", "plan", "doctor"]
VERBS += ["cache stats", "cache prune", "cache clear", "local install"]


def shell(line, home):
    """A real shell, in which ``voxvec`` is this one."""
    source = str(Path(entry.__file__).parents[1])
    done = subprocess.run(  # noqa: S603 -- our own line
        ["/bin/sh", "-c", line.replace("voxvec", f"'{sys.executable}' -m voxvec")],
        env={**os.environ, "PYTHONPATH": source},
        cwd=home,
        capture_output=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def command(*args, **options):
    """A real process, in which warnings are errors as in these tests."""
    source = str(Path(entry.__file__).parents[1])
    environ = {**os.environ, "PYTHONPATH": source, "PYTHONWARNINGS": "error", **options.pop("env", {})}
    return subprocess.Popen(  # noqa: S603 -- our own command
        [sys.executable, "-m", "voxvec", *map(str, args)],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        **options,
    )


# -- help


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_json(run, verb):
    result = run(*verb.split(), "--help")

    assert result.exit_code == 0
    assert "--json" in result.stdout


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_h_is_short_for_help(run, verb):
    assert run(*verb.split(), "-h").stdout == run(*verb.split(), "--help").stdout


@pytest.mark.parametrize(("found", "shown"), [("1.2.3", "1.2.3"), (None, "(not installed as a package)")])
def test_the_version_is_told(run, monkeypatch, found, shown):
    monkeypatch.setattr(doctor, "installed", lambda _: found)

    assert run("--version").stdout == f"voxvec {shown}\n"


def test_without_a_verb_the_verbs_are_listed(run):
    result = run()

    assert result.exit_code == 2
    assert all(verb.split()[0] in result.output for verb in VERBS)


def test_help_imports_neither_openai_nor_numpy():
    code = (
        "import sys; from voxvec.__main__ import main; sys.argv = ['voxvec', '--help']\n"
        "try: main()\n"
        "except SystemExit: print(sorted({'openai', 'numpy', 'pydantic', 'httpx2'} & set(sys.modules)))"
    )
    source = str(Path(entry.__file__).parents[1])
    done = subprocess.run(  # noqa: S603 -- our own code
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": source}, capture_output=True, check=True
    )

    assert done.stdout.decode().splitlines()[-1] == "[]"


# -- the entry point


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_the_entry_point_says_how_to_get_it(monkeypatch, capsys, missing):
    real = importlib.util.find_spec
    monkeypatch.setattr(entry, "find_spec", lambda name: None if name == missing else real(name))

    assert entry.main() == 2
    assert "pip install 'voxvec[cli]'" in capsys.readouterr().err


def test_an_interrupt_before_a_verb_runs_ends_with_130(monkeypatch):
    def interrupt(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr("voxvec.cli.app", interrupt)

    assert entry.main() == 130


def test_the_entry_point_runs_a_verb(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["voxvec", "models", "--json"])
    with pytest.raises(SystemExit) as ended:
        entry.main()

    assert not ended.value.code
    assert json.loads(capsys.readouterr().out)["models"]


def test_any_script_can_be_printed_whatever_the_terminal_is_set_to(home):
    (home / "t.txt").write_text("고양이가 잔다\n", "utf-8")
    with FakeOpenAI().serve() as base_url:
        env = {"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "sk-canary-0123456789abcdef", "PYTHONIOENCODING": "ascii"}
        out, err = command("search", "고양이", "--in", "t.txt", cwd=home, env=env).communicate(timeout=60)

    assert "고양이가 잔다" in out.decode(), err.decode()
    assert b"canary" not in out + err


# -- failing


def test_an_interrupt_ends_with_130_and_one_line(run, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("voxvec.cli.screen.columns", interrupt)
    result = run("models")

    assert (result.exit_code, result.stderr.count("\n")) == (130, 1)


@pytest.fixture
def heeding():
    """Children heed Ctrl-C even if these tests run in the background, where a shell has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for others")
@pytest.mark.usefixtures("heeding")
def test_ctrl_c_during_a_request_ends_the_process_with_130(home):
    (home / "t.txt").write_text("kitten\n")
    asked, go_on = threading.Event(), threading.Event()

    def hold(request, reply):
        asked.set()
        go_on.wait(30)
        return reply

    with FakeOpenAI(mutate=hold).serve() as base_url:
        env = {"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "sk-canary-0123456789abcdef"}
        process = command("embed", "t.txt", cwd=home, env=env)
        assert asked.wait(60)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        go_on.set()

    assert (process.returncode, out) == (130, b"")
    assert b"Traceback" not in err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other pipes")
def test_a_reader_that_goes_away_is_no_error_worth_a_word(home):
    process = command("models", "--json", cwd=home)
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()

    assert (process.wait(60), err) == (141, b"")


def test_a_full_disk_is_one_line(run, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "v.npz")

    monkeypatch.setattr("voxvec.cli.screen.columns", full)
    result = run("models")

    assert (result.exit_code, result.stderr) == (1, "voxvec: v.npz: No space left on device\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no such device here")
@pytest.mark.parametrize("args", ["models", "models nonsense --json"])
def test_a_result_that_cannot_be_printed_is_one_line(home, args):
    code, _, err = shell(f"voxvec {args} > /dev/full", home)

    assert (code, err.count("\n")) == (1, 1), err


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such shell there")
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("voxvec models >&-", "stdout is closed"),
        ("voxvec --help >&-", "stdout is closed"),
        ("voxvec embed - <&-", "stdin is closed"),
    ],
)
def test_a_closed_stream_is_one_line(home, line, reason):
    code, out, err = shell(line, home)

    assert (code, out, err.count("\n")) == (1, "", 1), err
    assert reason in err


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such shell there")
def test_a_closed_stderr_costs_the_remarks_only(home):
    assert shell("voxvec models 2>&-", home)[0] == 0
    assert shell("voxvec models nonsense 2>&-", home)[:2] == (1, "")


@pytest.mark.parametrize(
    ("args", "kind"),
    [
        (["demo"], "ConfigError"),
        (["transcribe", "x.wav", "--model", "whisper-1"], "ConfigError"),
        (["translate", "x.wav"], "ConfigError"),
        (["embed", "missing.txt"], "InputError"),
        (["search", "", "--in", "missing.txt"], "InputError"),
        (["plan", "t.txt", "--embedding-model", "whisper-1"], "ConfigError"),
        (["models", "nonsense"], "ConfigError"),
        (["cache", "stats"], "CacheError"),
        (["cache", "clear"], "CacheError"),
        (["cache", "prune", "--older-than", "1d"], "CacheError"),
    ],
)
def test_json_tells_of_an_error_as_well(run, home, tmp_path, args, kind):
    (home / "t.txt").write_text("kitten\n")
    if args[0] == "cache":
        (tmp_path / "cache" / "cache.db").mkdir(parents=True)
    result = run(*args, "--json")
    found = json.loads(result.stdout)["error"]

    assert (result.exit_code, found["type"], found["billed"]) == (1, kind, "no")
    assert result.stderr.endswith(f"voxvec: {found['message']}\n")


def test_json_tells_of_what_the_system_refused_too(run, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "v.npz")

    monkeypatch.setattr("voxvec.models.names", full)

    assert json.loads(run("models", "--json").stdout)["error"] == {
        "type": "OSError",
        "message": "v.npz: No space left on device",
        "billed": "maybe",
    }


def test_an_error_without_a_file_is_one_line_too(run, monkeypatch):
    def broken(*_):
        raise OSError("something\nis wrong")

    monkeypatch.setattr("voxvec.cli.screen.columns", broken)

    assert run("models").stderr == "voxvec: something is wrong\n"


def test_a_warning_of_ours_is_a_remark_and_that_of_another_is_shown_as_ever(monkeypatch):
    def warn(*_):
        warnings.warn("mind the gap", VoxvecWarning, stacklevel=1)
        warnings.warn("old thing", UserWarning, stacklevel=1)
        return "table\n"

    monkeypatch.setattr("voxvec.cli.screen.columns", warn)
    with pytest.warns(UserWarning, match="old thing"):
        result = CliRunner().invoke(app, ["models"])

    assert (result.stdout, result.stderr) == ("table\n", "voxvec: mind the gap\n")


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refusal_of_the_server_is_one_line_without_the_key(server, run, home, status):
    (home / "t.txt").write_text("kitten\n")
    server.fail_next(status, body={"error": {"message": "bad sk-canary-0123456789abcdef", "code": None}})
    result = run("embed", "t.txt")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1


# -- what is shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0:00.0"), (5.04, "0:05.0"), (59.96, "1:00.0"), (754.3, "12:34.3"), (3723.4, "1:02:03.4")],
)
def test_times_are_shown_for_reading(seconds, shown):
    assert screen.clock(seconds) == shown


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_no_time_shows_sixty_seconds_and_times_keep_their_order(a, b):
    def read(shown):
        parts = [float(part) for part in shown.split(":")]
        assert all(part < 60 for part in parts[1:])
        return sum(part * 60**power for power, part in enumerate(reversed(parts)))

    early, late = sorted((a, b))
    assert read(screen.clock(early)) <= read(screen.clock(late)) + 1e-6
    assert read(screen.clock(a)) == pytest.approx(a, abs=0.051)


@pytest.mark.parametrize(
    ("dollars", "shown"),
    [(Decimal("0.000000"), "$0"), (Decimal(100), "$100"), (Decimal("1E-7"), "$0.0000001"), (None, "cost unknown")],
)
def test_money_is_shown_to_its_last_digit(dollars, shown):
    assert screen.money(dollars) == shown


@pytest.mark.parametrize(("n", "shown"), [(0, "0 texts"), (1, "1 text"), (2_000, "2,000 texts")])
def test_one_is_not_several(n, shown):
    assert screen.count(n, "text") == shown


def test_an_unknown_cost_makes_the_sum_unknown():
    total = Bill(requests=1, cost=Decimal(1)) + Bill(requests=2, cost=None) + Bill(cost=Decimal(1))

    assert (total.requests, total.cost, total.as_json()["cost"]) == (3, None, None)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_long_work_shows_a_bar_on_a_terminal_and_on_stderr_alone(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with screen.progress("texts", 3) as tell:
        tell(2, 3)
        sys.stdout.write("a result\n")

    assert "texts" in terminal.getvalue()
    assert capsys.readouterr().out == "a result\n"


@pytest.mark.parametrize(("total", "hidden"), [(1, False), (3, True)])
def test_short_work_and_work_that_shows_results_have_no_bar(monkeypatch, total, hidden):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with screen.progress("texts", total, hidden=hidden) as tell:
        tell(total, total)

    assert sys.stderr.getvalue() == ""

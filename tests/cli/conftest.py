import io
import json
import wave

import pytest
from typer.testing import CliRunner

import voxvec as vv
from voxvec.cli import app
from voxvec.errors import ConfigError
from voxvec.local import weights
from voxvec.testing import FakeOpenAI

KEY = "sk-canary-0123456789abcdef"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A user without a key, whose cache folder and working folder are empty."""
    monkeypatch.setenv("VOXVEC_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def fake():
    return FakeOpenAI()


@pytest.fixture
def server(fake, monkeypatch):
    """A server on a socket of this machine, and a key for it."""
    with fake.serve() as base_url:
        monkeypatch.setenv("OPENAI_BASE_URL", base_url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield fake


@pytest.fixture
def keyless(fake, monkeypatch):
    """The fake in the place of the keyless backend, which would need weights and a recogniser."""
    monkeypatch.setattr(vv.local, "client", fake.client)
    monkeypatch.setattr(weights, "find", lambda: None)
    return fake


@pytest.fixture
def run(home):
    """Run a command and return its result; whatever it prints, a key is never in it."""

    def run(*args, stdin=None):
        result = CliRunner().invoke(app, [str(arg) for arg in args], input=stdin)
        assert KEY not in result.output
        assert "Traceback" not in result.output
        return result

    return run


@pytest.fixture
def answer(run):
    """Run a command that succeeds, with ``--json``, and return what it prints."""

    def answer(*args, stdin=None):
        result = run(*args, "--json", stdin=stdin)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return answer


@pytest.fixture
def notes(home):
    file = home / "notes.txt"
    file.write_text("the cat sleeps\n\na dog barks\r\nthe cat sleeps\n", "utf-8")
    return file


def recording(seconds=1.0, level=0):
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(bytes([level, 0]) * int(seconds * 8000))
    return file.getvalue()


@pytest.fixture
def talk(home):
    file = home / "talk.wav"
    file.write_bytes(recording(4.0))
    return file


@pytest.fixture
def more_talk(home):
    file = home / "more.wav"
    file.write_bytes(recording(2.0, level=1))
    return file


@pytest.fixture
def installed(monkeypatch):
    """The real weights, if this machine has them; without them the test is skipped."""
    with monkeypatch.context() as outside:
        outside.delenv("VOXVEC_CACHE_DIR")
        try:
            folder = weights.find()
        except ConfigError:
            pytest.skip("the weights of all-MiniLM-L6-v2 are not installed: voxvec local install")
    target = weights.cache_folder() / "models"
    target.mkdir(parents=True, mode=0o700)
    (target / folder.name).symlink_to(folder)
    return folder

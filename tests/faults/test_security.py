"""What is secret shows nowhere, and nothing that comes in is run: F49, F50, F61, F63 and the promises P24 to P27."""

import contextlib
import gc
import io
import pickle
import random
import sys
import traceback
import types
import warnings
import wave

import httpx2
import openai
import pytest

import voxvec as vv
from voxvec._key import hidden
from voxvec.errors import AuthError, ConfigError, InputError, NetworkError, RefusedError, ServerError, VoxvecError
from voxvec.testing import FakeOpenAI

PASSWORD = "hunter2-hunter2"  # a key that looks like none
MODELS = {"Embedder": "text-embedding-3-small", "nscriber": "gpt-transcribe"}
NOWHERE = "http://127.0.0.1:9/v1"  # the port "discard", where nobody listens


def recording(said=b""):
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(1)
        out.setframerate(8000)
        out.writeframes(said + random.Random(said).randbytes(4000))  # noqa: S311 -- noise
    return file.getvalue()


def above(error):
    """The error with everything that it, as Python shows it, came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def shown(error):
    """All that can be read off an error by whoever gets hold of it: prints, logs, reports or pickles it."""
    stack = io.StringIO()
    with contextlib.redirect_stderr(stack):
        sys.excepthook(type(error), error, error.__traceback__)
    for each in above(error):
        yield from (str(each), repr(each), repr(each.args), repr(vars(each)), repr(getattr(each, "__notes__", None)))
    yield stack.getvalue()
    yield pickle.dumps(error).decode("latin-1")
    yield repr(pickle.loads(pickle.dumps(error)).__dict__)  # noqa: S301 -- made here


def shown_with_locals(error):
    """The variables of every frame of ours and of those below us, as error trackers send them."""
    seen = []
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if "tests" in frame.f_code.co_filename.split("/"):
            continue
        for name, value in frame.f_locals.items():
            with contextlib.suppress(AttributeError):  # an object that is not yet made cannot be shown
                seen.append(f"{name} = {value!r}")
    return "\n".join(seen)


def reachable(root):
    """Everything that hangs on an object, the variables of its traceback's frames included."""
    seen, rest = {}, [root]
    while rest:
        thing = rest.pop()
        kinds = types.ModuleType | types.FunctionType | type
        if id(thing) in seen or isinstance(thing, kinds):
            continue
        if isinstance(thing, types.FrameType) and "voxvec" not in thing.f_code.co_filename:
            continue
        seen[id(thing)] = thing
        rest.extend(gc.get_referents(thing))
    return list(seen.values())


class Room:
    """A verb of either room, with what it is given in private."""

    def __init__(self, name, canary):
        self.name, self.text = name, canary.TEXT

    def client(self, twin, **settings):
        make = twin.embedder if self.name == "embed" else twin.transcriber
        return make(retry=vv.Retry(attempts=1), **settings)

    def ask(self, client):
        if self.name == "embed":
            return client.embed([self.text])
        return client.transcribe(recording(self.text.encode()), prompt=self.text)

    def fail(self, client):
        with pytest.raises(VoxvecError) as caught:
            self.ask(client)
        return caught.value


@pytest.fixture(params=["embed", "transcribe"])
def room(request, canary):
    return Room(request.param, canary)


@pytest.fixture
def fake():
    return FakeOpenAI()


@pytest.fixture
def address(fake):
    with fake.serve() as url:
        yield url


ECHO = "Incorrect API key provided: {key}.\n\x1b[31mAsk \u202e about Bearer {key}"
FAILURES = [
    pytest.param(401, AuthError, id="refused"),
    pytest.param(400, RefusedError, id="wrong"),
    pytest.param(500, ServerError, id="broken"),
    pytest.param(None, NetworkError, id="unreachable"),
]


def echoing(fake, status, key):
    """Let the server quote the key wherever it can."""
    body = {"error": {"message": ECHO.format(key=key), "code": key, "type": key, "param": key}}
    # Headers go into the transport's own log, which is not ours; so the canary is in none.
    fake.fail_next(status, body=body, headers={"x-request-id": f"req-{key}"} if key == PASSWORD else {})


@pytest.mark.case("F49", "F50", "F63")
@pytest.mark.parametrize("key", [None, PASSWORD], ids=["a key", "a key that looks like none"])
@pytest.mark.parametrize(("status", "cls"), FAILURES)
def test_neither_key_nor_text_can_be_read_off_an_error(twin, room, fake, address, canary, status, cls, key):  # noqa: PLR0917 -- fixtures and cases
    key = key or canary.KEY
    if status is not None:
        echoing(fake, status, key)
    with contextlib.closing(room.client(twin, api_key=key, base_url=address if status else NOWHERE)) as client:
        error = room.fail(client)

    assert type(error) is cls
    for text in shown(error):
        assert key not in text
        assert room.text not in text
    assert key not in shown_with_locals(error)
    assert str(error).isprintable()
    assert len(str(error)) <= 2_000
    things = reachable(error)
    assert not [thing for thing in things if isinstance(thing, httpx2.Request | httpx2.Response | openai.OpenAIError)]
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 -- made here
    assert (type(again), str(again), again.status, again.request_id) == (
        type(error),
        str(error),
        error.status,
        error.request_id,
    )


@pytest.mark.case("F50")
@pytest.mark.parametrize("status", [200, 401, 500])
def test_neither_key_nor_text_is_in_any_log_or_warning_or_cache(  # noqa: PLR0917 -- fixtures
    twin, room, fake, address, canary, status, caplog, capfd, tmp_path
):
    if status != 200:
        echoing(fake, status, canary.KEY)
    with caplog.at_level(1), warnings.catch_warnings(record=True) as warned:
        for name in ("openai", "httpx2", "httpcore2", "voxvec", "asyncio"):
            caplog.set_level(1, logger=name)
        client = room.client(twin, base_url=address, cache=tmp_path / "cache" / "rows.db")
        with contextlib.closing(client), contextlib.suppress(VoxvecError):
            room.ask(client)

    assert {"openai", "httpcore2"} <= {record.name.partition(".")[0] for record in caplog.records}  # it was not deaf
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()).decode("latin-1")
    assert written
    for text in (caplog.text, *(str(each.message) for each in warned), *capfd.readouterr(), written):
        assert canary.KEY not in text
        assert canary.TEXT not in text


@pytest.mark.case("F50")
def test_the_key_is_neither_shown_nor_pickled_by_what_holds_it(twin, room, canary):
    with contextlib.closing(room.client(twin)) as client:
        bare = getattr(client, "_client", client) if twin.kind == "async" else client
        inner = bare._client

        for thing in (client, bare, inner, inner.setup, inner.setup.api_key):
            assert canary.KEY not in f"{thing!r}"
            if thing is not inner.setup.api_key:
                assert canary.KEY not in f"{thing}"
            with pytest.raises(TypeError):
                pickle.dumps(thing)
        assert inner.setup.api_key == canary.KEY


@pytest.mark.case("F50", "F61")
@pytest.mark.parametrize(
    "settings",
    [
        {"workers": 0},
        {"base_url": "https://me:hunter2@host/v1"},
        {"base_url": "nonsense"},
        {"timeout": -1},
        {"cache": object()},
        {"cache": "redis://me:hunter2@host/0"},
        {"model": object()},
        {"client": object()},
    ],
    ids=lambda settings: next(iter(settings)),
)
@pytest.mark.parametrize("cls", [vv.Embedder, vv.AsyncEmbedder, vv.Transcriber, vv.AsyncTranscriber])
def test_a_setting_that_is_refused_shows_no_credentials_in_any_frame(cls, settings, canary):
    with pytest.raises(ConfigError) as caught:
        cls(**{"model": MODELS[cls.__name__[-8:]], **settings}, api_key=canary.KEY)

    for text in (*shown(caught.value), shown_with_locals(caught.value).replace(repr(settings), "")):
        assert canary.KEY not in text
    for text in shown(caught.value):
        assert "hunter2" not in text.replace(repr(settings), "")


@pytest.mark.case("F61")
@pytest.mark.parametrize("blank", ["\n", "\r\n", " ", "\t"])
def test_a_line_break_after_the_key_does_not_reach_the_server(twin, room, fake, address, canary, blank):  # noqa: PLR0917 -- as above
    fake.fail_next(401)
    with contextlib.closing(room.client(twin, api_key=canary.KEY + blank, base_url=address)) as client:
        assert type(room.fail(client)) is AuthError

    assert fake.asked == 1


@pytest.mark.case("F61")
@pytest.mark.parametrize("bad", ["{key}\nx", "{key}\x00", "two {key}", "{key}é"])
@pytest.mark.parametrize("where", ["given", "environment"])
def test_a_key_that_cannot_be_one_is_refused_and_in_no_traceback(  # noqa: PLR0917 -- as above
    twin, room, canary, monkeypatch, bad, where
):
    key = bad.format(key=canary.KEY)
    if where == "environment":
        if "\x00" in key:
            pytest.skip("no environment can hold it")
        monkeypatch.setenv("OPENAI_API_KEY", key)
    with contextlib.closing(room.client(twin, api_key=key if where == "given" else None, base_url=NOWHERE)) as client:
        error = room.fail(client)

    assert isinstance(error, ConfigError)
    for text in (*shown(error), shown_with_locals(error)):
        assert canary.KEY not in text


@pytest.mark.case("F50")
@pytest.mark.parametrize(
    "wrong",
    [
        lambda client, text: client.transcribe(recording(), prompt=text + "\ud83d"),
        lambda client, text: client.transcribe(recording(), keywords=[f"<{text}>"]),
        lambda client, text: client.transcribe(recording(), keywords=text),
        lambda client, text: client.transcribe(text.encode()),
        lambda client, text: client.transcribe("data:audio/wav;base64," + text),
        lambda client, text: client.transcribe(text + "\0"),
    ],
)
def test_what_cannot_be_transcribed_is_not_shown(twin, canary, wrong):
    with contextlib.closing(twin.transcriber()) as client, pytest.raises(InputError) as caught:
        wrong(client, canary.TEXT)

    for text in shown(caught.value):
        assert canary.TEXT not in text


@pytest.mark.case("F50")
@pytest.mark.parametrize(
    "given",
    [
        lambda text: [text + "\ud83d"],
        lambda text: [text, 3],
        lambda text: text,
        lambda text: [text * 10_000],
    ],
)
def test_what_cannot_be_embedded_is_not_shown(twin, canary, given):
    with contextlib.closing(twin.embedder()) as client, pytest.raises(InputError) as caught:
        client.embed(given(canary.TEXT))

    for text in shown(caught.value):
        assert canary.TEXT not in text


@pytest.mark.case("F50")
def test_a_hidden_key_is_a_text_to_all_but_those_who_show_or_copy_it():
    key = hidden("sk-abcdefgh")

    assert (key, f"Bearer {key}", hidden(None)) == ("sk-abcdefgh", "Bearer sk-abcdefgh", None)
    assert "abcd" not in repr([key])
    with pytest.raises(TypeError, match="read it anew"):
        pickle.dumps({"key": key})

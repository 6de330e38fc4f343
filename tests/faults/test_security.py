"""What is secret shows nowhere, and nothing that comes in is run: F49, F50, F61, F63 and the promises P24 to P27."""

import ast
import contextlib
import email
import functools
import gc
import importlib.util
import io
import json
import os
import pickle
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import traceback
import types
import warnings
import wave
from pathlib import Path

import httpx2
import openai
import pytest

import voxvec
import voxvec as vv
from voxvec import rows
from voxvec._key import hidden
from voxvec.caches import schema
from voxvec.errors import (
    AudioError,
    AuthError,
    ConfigError,
    InputError,
    NetworkError,
    RefusedError,
    ResponseError,
    ServerError,
    VoxvecError,
)
from voxvec.local.exchange import Reply
from voxvec.testing import FakeOpenAI
from voxvec.transcription import audio

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


@pytest.mark.case("F49", "F50", "F63", "S2", "S3")
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


@pytest.mark.case("F63", "S3")
@pytest.mark.parametrize("key", [None, PASSWORD], ids=["a key", "a key that looks like none"])
def test_a_key_in_an_answer_that_claims_success_is_hidden_too(twin, room, canary, key):
    key = key or canary.KEY
    fake = FakeOpenAI()
    reply = Reply(
        200, {"content-type": "application/json"}, json.dumps({"error": {"message": ECHO.format(key=key)}}).encode()
    )
    fake.mutate = lambda asked, honest: reply
    with fake.serve() as url, contextlib.closing(room.client(twin, api_key=key, base_url=url)) as client:
        error = room.fail(client)

    assert type(error) is ResponseError
    assert "[secret]" in str(error)
    for text in (*shown(error), shown_with_locals(error)):
        assert key not in text


@pytest.mark.case("F50", "S1")
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


@pytest.mark.case("F50", "S1")
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


@pytest.mark.case("F61", "S4")
@pytest.mark.parametrize("blank", ["\r\n", " "])
def test_a_line_break_after_the_key_does_not_reach_the_server(twin, room, fake, address, canary, blank):  # noqa: PLR0917 -- as above
    fake.fail_next(401)
    with contextlib.closing(room.client(twin, api_key=canary.KEY + blank, base_url=address)) as client:
        assert type(room.fail(client)) is AuthError

    assert fake.asked == 1


@pytest.mark.case("F61", "S4")
@pytest.mark.parametrize("bad", ["{key}\nx", "{key}\x00", "two {key}é"])
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


# --- what comes in is not run


SOURCES = sorted(Path(voxvec.__file__).parent.rglob("*.py"))
NEVER = {
    "pickle",
    "marshal",
    "shelve",
    "dbm",
    "yaml",
    "dill",
    "cloudpickle",
    "joblib",
    "code",
    "codeop",
    "runpy",
    "imp",
}
CALLS = {"eval", "exec", "compile", "__import__", "breakpoint"}


def dangers(source):
    """What in a module could run data, with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from ((node.lineno, name) for name in names if name.partition(".")[0] in NEVER)
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            keywords = {each.arg: ast.unparse(each.value) for each in node.keywords}
            if (
                called in CALLS
                or called in {"os.system", "os.popen", "os.startfile"}
                or called.startswith(("os.exec", "os.spawn"))
            ):
                yield node.lineno, called
            if called.endswith("import_module") and not safe_import(node.args[0]):
                yield node.lineno, ast.unparse(node)
            if keywords.get("shell", "False") != "False" or keywords.get("allow_pickle", "False") != "False":
                yield node.lineno, ast.unparse(node)
            if called in {"np.load", "numpy.load"} and "allow_pickle" not in keywords:
                yield node.lineno, ast.unparse(node)


def safe_import(name):
    """A constant, or a module of ours, by a name out of a table of ours: data never choose what is imported."""
    ours = ("{__name__}.", "voxvec.", "_HOME[", "_ROOM_OF[")
    return isinstance(name, ast.Constant) or ast.unparse(name).lstrip("f\"'").startswith(ours)


@pytest.mark.case("C27", "C28", "S7")
def test_no_module_of_ours_can_run_data():
    assert [(path.name, *found) for path in SOURCES for found in dangers(path.read_text("utf-8"))] == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from marshal import loads",
        "eval(x)",
        "import_module(name)",
        "importlib.import_module(f'{name}.x')",
        "subprocess.run(x, shell=True)",
        "np.load(x)",
        "np.load(x, allow_pickle=True)",
        "os.system(x)",
    ],
)
def test_the_scan_finds_what_could(line):
    assert list(dangers(line))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rows.db"


def row(number):
    key = bytes([number]) * 32
    return {key: rows.pack(key, b"x" * 40, kind=rows.Kind.DOCUMENT, width=40, tokens=None, model="m")}


@pytest.mark.case("C28", "S9")
def test_a_trigger_that_is_planted_while_the_file_is_open_does_not_run(path):
    with vv.SqliteCache(path) as cache:
        cache.set_many(row(1))
        with contextlib.closing(sqlite3.connect(path)) as other, other:
            other.execute("CREATE TRIGGER t BEFORE INSERT ON rows BEGIN UPDATE rows SET value = x'00'; END")
        with pytest.warns(vv.errors.VoxvecWarning, match="out of use"):
            cache.set_many(row(2))
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT value FROM rows").fetchall() == [(next(iter(row(1).values())),)]


@pytest.mark.case("C28")
def test_a_view_in_the_place_of_our_table_is_not_asked(path):
    with vv.SqliteCache(path) as cache:
        cache.set_many(row(1))
        assert cache.get_many(row(1)) == row(1)
        with contextlib.closing(sqlite3.connect(path)) as other, other:
            other.execute("ALTER TABLE rows RENAME TO hidden")
            other.execute("CREATE VIEW rows AS SELECT *, randomblob(9) FROM hidden")
        with pytest.warns(vv.errors.VoxvecWarning, match="out of use"):
            assert cache.get_many(row(1)) == {}


@pytest.mark.case("C27", "S9")
@pytest.mark.parametrize(
    "statement",
    [
        "ATTACH DATABASE '{other}' AS other",
        "CREATE TRIGGER t AFTER INSERT ON rows BEGIN SELECT 1; END",
        "CREATE VIEW v AS SELECT 1",
        "CREATE TEMP TABLE t (x)",
        "CREATE TABLE other (x)",
        "DROP TABLE rows",
        "ALTER TABLE rows ADD COLUMN x",
        "SELECT load_extension('x')",
        "SELECT writefile('x', value) FROM rows",
        "SELECT randomblob(9)",
        "VACUUM INTO '{other}'",
    ],
)
def test_sqlite_refuses_what_our_statements_do_not_need(path, tmp_path, statement):
    with vv.SqliteCache(path) as cache:
        cache.set_many(row(1))
        with cache._store.reading() as connection:
            connection.execute("PRAGMA query_only = OFF")
            with pytest.raises(sqlite3.DatabaseError, match=r"not authorized|denied|prohibited|no such function"):
                connection.execute(statement.format(other=tmp_path / "other.db"))

    assert not (tmp_path / "other.db").exists()


@pytest.mark.case("S9")
def test_every_connection_is_told_not_to_trust_the_file(path):
    with vv.SqliteCache(path) as cache:
        cache.set_many(row(1))
        for use in (cache._store.reading, cache._store.writing):
            with use() as connection:
                settings = [
                    connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("trusted_schema", "cell_size_check")
                ]
                assert settings == [0, 1]
                assert [name for _, name, _ in connection.execute("PRAGMA database_list")] == ["main"]
                if sys.version_info >= (3, 12):
                    assert connection.getconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE)


@pytest.mark.case("C18", "S6")
@pytest.mark.skipif(sys.platform == "win32", reason="has other rights")
@pytest.mark.parametrize("end", ["-journal", "-wal", "-shm"])
@pytest.mark.parametrize("kind", ["link", "foreign"])
def test_a_journal_that_somebody_else_put_beside_the_file_is_not_replayed(path, end, kind, monkeypatch):
    with vv.SqliteCache(path) as cache:
        cache.set_many(row(1))
    beside = path.with_name(path.name + end)
    beside.unlink(missing_ok=True)
    if kind == "link":
        beside.symlink_to(path.with_name("elsewhere"))
    else:
        beside.touch()
        real = Path.lstat
        owner = real(path).st_uid + 1

        def lstat(self):
            found = real(self)
            return os.stat_result((*found[:4], owner, *found[5:10])) if self.name == beside.name else found

        monkeypatch.setattr(Path, "lstat", lstat)

    with vv.SqliteCache(path) as cache, pytest.raises(vv.errors.CacheError, match="put there by another user"):
        cache.get_many(row(1))


# --- what is asked of the machine


WATCHED = []


@functools.cache
def hook():
    """What the interpreter tells of files, programs and addresses; a hook cannot be taken out again."""
    interesting = (
        "open",
        "subprocess.",
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "os.fork",
        "socket.connect",
        "tempfile.",
    )

    def note(event, args):
        if WATCHED and event.startswith(interesting):
            WATCHED[-1].append((event, args))

    sys.addaudithook(note)


@contextlib.contextmanager
def watching():
    hook()
    seen = []
    WATCHED.append(seen)
    try:
        yield seen
    finally:
        WATCHED.remove(seen)


def writes(event, args):
    return event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)


@pytest.mark.case("I14", "S13", "S17")
def test_a_call_writes_no_file_starts_no_program_and_connects_to_nobody_else(twin, room, fake, tmp_path):
    given = tmp_path / "speech.wav"
    given.write_bytes(recording())
    client = room.client(twin, client=twin.client(fake), cache=vv.MemoryCache())
    with contextlib.closing(client):
        room.ask(client)  # what is imported and read once is
        with watching() as seen:
            (client.embed(["another"]) if room.name == "embed" else client.transcribe(given))

    assert [(event, args) for event, args in seen if event != "open" or writes(event, args)] == []


@pytest.mark.case("I14", "S13")
@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/a.wav", "file:///etc/passwd", "concat:a|b", "ftp://x/y", "\\\\host\\share"]
)
def test_no_address_is_fetched_for_a_recording(twin, url):
    with contextlib.closing(twin.transcriber()) as client, watching() as seen, pytest.raises(InputError):
        client.transcribe(url)

    assert [event for event, _ in seen if event != "open"] == []


@pytest.mark.case("I14")
@pytest.mark.parametrize(
    "head",
    [b"#EXTM3U\n#EXTINF:1,\n", b"ffconcat version 1.0\nfile ", b"ID3\x04\x00\x00\x00\x00\x00\x00#EXTM3U\n#EXTINF:1,\n"],
)
def test_a_playlist_in_disguise_opens_nothing(head, tmp_path):
    bait = tmp_path / "bait.wav"
    bait.write_bytes(recording())
    with watching() as seen, pytest.raises(AudioError):
        audio.read(head + str(bait).encode() + b"\n")

    assert seen == []


@pytest.mark.skipif(importlib.util.find_spec("av") is None, reason="needs the extra [audio]")
@pytest.mark.parametrize("container", sorted(set(audio._FORMATS) - {"wav"}))
def test_pyav_reads_each_container_as_what_it_is_and_nothing_else(container):
    assert audio._probe(recording(), "wav") == 0.5
    with contextlib.suppress(AudioError):
        assert audio._probe(recording(), container) != 0.5


@pytest.mark.case("F65", "I13", "S14")
@pytest.mark.parametrize(
    "name", ['a"; filename="b.wav', "a\r\nX-Evil: 1\r\n.wav", "../../x.wav", "ünï.wav", "x" * 200 + ".wav"]
)
def test_an_upload_is_one_well_formed_part_whose_name_is_ours(twin, tmp_path, name):
    given = tmp_path / Path(name).name
    given.write_bytes(recording())
    bodies = []

    def answer(request):
        bodies.append((request.headers["content-type"], request.content))
        return httpx2.Response(200, json={"text": "hello"})

    async def answer_later(request):
        await request.aread()
        return answer(request)

    sync = twin.kind == "sync"
    kind = httpx2.Client if sync else httpx2.AsyncClient
    http = kind(transport=httpx2.MockTransport(answer if sync else answer_later))
    client = (openai.OpenAI if sync else openai.AsyncOpenAI)(api_key="sk-x", http_client=http)
    with contextlib.closing(twin.transcriber("gpt-transcribe", client=client)) as transcriber:
        transcriber.transcribe(given)

    kind, body = bodies[0]
    message = email.message_from_bytes(f"content-type: {kind}\r\n\r\n".encode() + body)
    files = [part for part in message.get_payload() if part.get_filename() is not None]
    assert [(part.get_filename(), [header.lower() for header in part]) for part in files] == [
        ("audio.wav", ["content-disposition", "content-type"])
    ]
    assert all(part.get_param("name", header="content-disposition") for part in message.get_payload())


FRAME = b"\xff\xfb\x90\x00" + bytes(413)


@pytest.mark.case("I11")
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(FRAME * 2 + FRAME[:4] * 1000, id="beginnings without frames"),
        pytest.param(b"ID3\x04" + bytes(6) + FRAME[:4] * 1000, id="no frame at all"),
    ],
)
def test_a_recording_made_to_take_long_is_given_up(data, monkeypatch):
    monkeypatch.setattr(audio, "_MOST_TRIES", 100)
    seen = []
    real = audio._is_mp3
    monkeypatch.setattr(audio, "_is_mp3", lambda *args: seen.append(args) or real(*args))

    with pytest.raises(AudioError, match="what looks like MP3 frames mostly is not"):
        audio.seconds(data, "mp3")
    assert len(seen) < 150


def test_a_tower_of_tags_is_not_climbed():
    tag = b"ID3\x04" + bytes(6)

    assert audio._after_id3(tag * 3) == 30
    assert audio._after_id3(tag * 1_000_000) == 1000


@pytest.mark.case("C28")
def test_a_row_larger_than_any_answer_is_not_even_read(path, monkeypatch):
    with vv.SqliteCache(path) as cache:
        cache.set_many(row(1))
    monkeypatch.setattr(schema, "_LONGEST", 1000)
    with contextlib.closing(sqlite3.connect(path)) as other, other:
        other.execute("UPDATE rows SET value = zeroblob(2000)")
    with vv.SqliteCache(path) as cache, pytest.warns(vv.errors.VoxvecWarning, match="too big"):
        assert cache.get_many(row(1)) == {}


# --- the canary itself


@pytest.mark.parametrize(
    ("address", "here"),
    [
        (("127.0.0.1", 80), True),
        (("127.9.9.9", 80), True),
        (("::1", 80, 0, 0), True),
        (("localhost", 80), True),
        ("/run/socket", True),
        (("10.0.0.1", 80), False),
        (("93.184.216.34", 443), False),
        (("2606:2800::1", 443, 0, 0), False),
        (("fe80::1%eth0", 443, 0, 0), False),
        (("api.openai.com", 443), False),
        (("0.0.0.1", 443), False),
    ],
)
def test_the_canary_knows_this_machine(canary, address, here):
    assert canary.is_here(address) == here


LEAKING = """
import logging, socket, warnings
import pytest

def test_clean(tmp_path):
    (tmp_path / "fine").write_text("nothing")

def test_log():
    logging.getLogger("openai.deep").debug("key %s", "sk-canary-1")

def test_traceback_in_log():
    try:
        raise ValueError("what the canary said in private")
    except ValueError:
        logging.getLogger("x").exception("failed")

def test_print(capsys):
    print("sk-canary-2")

def test_stdout():
    print("sk-canary-3")

def test_connect():
    with pytest.raises(OSError):
        socket.create_connection(("192.0.2.1", 9), timeout=0.1)

def test_file(tmp_path):
    (tmp_path / "rows.db").write_bytes(b"x sk-canary-4")
"""


@pytest.mark.case("S1", "S17")
@pytest.mark.slow
@pytest.mark.parametrize("workers", [[], ["-n", "1"]], ids=["alone", "with workers"])
def test_the_canary_finds_what_a_test_leaves(canary, tmp_path, workers):
    (tmp_path / "conftest.py").write_text(Path(canary.__file__).read_text("utf-8"), "utf-8")
    (tmp_path / "test_leaks.py").write_text(LEAKING, "utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        *workers,
        "--basetemp",
        str(tmp_path / "base"),
    ]

    done = subprocess.run(  # noqa: S603 -- our own words
        [*command, str(tmp_path)], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120
    )

    failed = set(re.findall(r"^FAILED \S*::(\w+)", done.stdout, flags=re.MULTILINE))
    assert failed == {"test_log", "test_traceback_in_log", "test_print", "test_stdout", "test_connect"}, done.stdout
    assert re.search(r"is in the file .*rows\.db", done.stdout), done.stdout
    assert done.returncode == 1
    shutil.rmtree(tmp_path / "base")  # or the canary of this run would find it

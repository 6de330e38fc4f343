"""The cache in a file: killed, cut off, locked, flipped, planted, and asked from everywhere."""

import array
import contextlib
import gzip
import json
import os
import pickle
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import unicodedata
import warnings
import wave
from pathlib import Path

import anyio
import pytest

import voxvec as vv
from voxvec import rows
from voxvec.caches import MemoryCache, SqliteCache, checkpoints, place, store
from voxvec.embedding.settings import Keys, Settings
from voxvec.errors import CacheError, VoxvecWarning
from voxvec.testing import MUTATIONS, FakeOpenAI, Fault

posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes as POSIX knows them")
GOLDEN = Path(__file__).parent.parent / "data" / "cache-1.db.gz"

PRELUDE = """
import contextlib, os, random, select, signal, sqlite3, sys, time, warnings
from voxvec import rows
from voxvec.caches import SqliteCache, sqlite, store
from voxvec.errors import CacheError, VoxvecWarning

path = sys.argv[1]


def key(number):
    return number.to_bytes(32, "big")


def row(number, width=700):
    payload = number.to_bytes(4, "big") * width
    return rows.pack(key(number), payload, kind=rows.Kind.VECTOR, width=width, tokens=1, model="m")


def some(*numbers):
    return {key(number): row(number) for number in numbers}


def intact():
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
"""


def key(number):
    return number.to_bytes(32, "big")


def row(number, width=700):
    payload = number.to_bytes(4, "big") * width
    return rows.pack(key(number), payload, kind=rows.Kind.VECTOR, width=width, tokens=1, model="m")


def some(*numbers):
    return {key(number): row(number) for number in numbers}


def command(script, *args):
    strict = ["-W", "error", "-W", "ignore:This process:DeprecationWarning"]
    return [sys.executable, *strict, "-c", PRELUDE + textwrap.dedent(script), *map(str, args)]


def run(script, *args, **env):
    done = subprocess.run(  # noqa: S603 -- our own script
        command(script, *args), capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **env}
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


@pytest.fixture
def shm():
    """A folder in memory where there is such a thing: on a disk every commit waits for it."""
    with tempfile.TemporaryDirectory(dir=next(filter(os.path.isdir, ["/dev/shm"]), None)) as folder:  # noqa: S108 -- fine for a test
        yield Path(folder)


@pytest.fixture
def path(shm):
    return shm / "cache.db"


@pytest.fixture
def wal(monkeypatch):
    """A linked SQLite that calls itself sound, so that files get a write-ahead log."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 51, 3))


# Killed


def kill(path, kills, seed=1):
    """Kill a writer again and again after some random milliseconds; how many rows it acknowledged are gone."""
    return run(
        f"""
        chance, known, lost = random.Random({seed}), 0, 0
        store.WRITE_WAIT = 30.0
        for _ in range({kills}):
            said, say = os.pipe()
            writer = os.fork()
            if not writer:
                cache, number = SqliteCache(path), known
                while True:
                    cache.set_many(some(*range(number, number + 5)))
                    number += 5
                    os.write(say, number.to_bytes(4, "big"))
            os.close(say)
            select.select([said], [], [], chance.choice([0, 0.004, 0.02]))
            time.sleep(chance.uniform(0, 0.004))
            os.kill(writer, signal.SIGKILL)
            os.waitpid(writer, 0)
            with open(said, "rb") as told:
                known = max([known, int.from_bytes(told.read()[-4:], "big")])
            assert intact()
            with SqliteCache(path) as cache:
                found = cache.get_many([key(number) for number in range(known)])
            lost += sum(found.get(key(number)) != row(number) for number in range(known))
            if known > 2000:
                os.unlink(path)
                known = 0
            time.sleep(0)
        print(lost)
        """,
        path,
    )


@posix
@pytest.mark.case("C01")
def test_killed_at_some_random_moments_a_writer_loses_nothing_it_acknowledged(path):
    assert kill(path, 8) == "0\n"


@posix
@pytest.mark.slow
@pytest.mark.case("C01")
def test_killed_at_two_hundred_random_moments_a_writer_loses_nothing_it_acknowledged(path):
    assert kill(path, 200, seed=2) == "0\n"


# Cut off from power


class Disk:
    """What a disk holds: what was synced for certain, what was not perhaps."""

    def __init__(self):
        self.safe, self.unsure = {}, {}

    def do(self, what, name, at, data):
        if what in {"write", "truncate"}:
            self.safe.setdefault(name, b"")
            self.unsure.setdefault(name, []).append((what, at, data))
        elif what == "sync":
            self.safe[name] = self.content(name, self.unsure.pop(name, []))
        elif what == "unlink":
            self.safe.pop(name, None)
            self.unsure.pop(name, None)

    def content(self, name, changes):
        content = bytearray(self.safe.get(name, b""))
        for what, at, data in changes:
            if what == "truncate":
                del content[at:]
                content.extend(bytes(at - len(content)))
            else:
                content.extend(bytes(max(0, at - len(content))))
                content[at : at + len(data)] = data
        return bytes(content)

    def after_a_cut(self, folder, survives):
        """Write down the files with those unsynced changes that survive."""
        for name in self.safe:
            kept = [change for change in self.unsure.get(name, []) if survives()]
            (folder / Path(name).name).write_bytes(self.content(name, kept))


def log_of(text):
    """What the shim logged, one by one."""
    at = 0
    while at < len(text):
        end = text.index(b"\n", at)
        what, name, offset, size = text[at:end].decode().split("\t")
        at = end + 1 + int(size)
        yield what, name, int(offset), text[end + 1 : at]


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler and LD_PRELOAD")
    library = tmp_path_factory.mktemp("shim") / "power_cut.so"
    source = Path(__file__).parent / "power_cut.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl", "-lpthread"], check=True)  # noqa: S603 -- our own code
    return library


def check_after_cuts(shm, shim, durability, journal, every):
    """Cut the power after each thing a writer asked of the disk; how many acknowledged batches were lost at worst."""
    path, log = shm / "written" / "cache.db", shm / "log"
    version = "(3, 51, 3)" if journal == "wal" else "(3, 40, 1)"
    run(
        f"""
        sqlite3.sqlite_version_info = {version}
        with SqliteCache(path, durability="{durability}") as cache:
            for number in range(0, 36, 3):
                cache.set_many(some(number, number + 1, number + 2))
                os.write(1, b"kept")
            assert cache.stats().journal_mode == "{journal}"
            cache.prune(max_bytes=150_000)
        """,
        path,
        LD_PRELOAD=str(shim),
        POWER_CUT_LOG=str(log),
    )
    steps = list(log_of(log.read_bytes()))
    pruned = max(at for at, step in enumerate(steps) if step[0] == "said") + 1
    disk, kept, worst, chance = Disk(), 0, 0, random.Random(5)  # noqa: S311 -- reproducible
    assert sum(step[0] == "sync" for step in steps) > 5
    for at, (what, *rest) in enumerate(steps):
        kept += what == "said"
        disk.do(what, *rest)
        if at % every:
            continue
        for survives in (lambda: False, lambda: chance.random() < 0.5):
            folder = shm / "after"
            folder.mkdir()
            disk.after_a_cut(folder, survives)
            found = {}
            if (folder / "cache.db").exists():
                with contextlib.closing(sqlite3.connect(folder / "cache.db")) as connection:
                    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",), (at, what, rest[:2])
                with SqliteCache(folder / "cache.db") as cache:
                    found = cache.get_many([key(number) for number in range(36)])
                    cache.set_many(some(99))
            assert all(found[name] == row(int.from_bytes(name, "big")) for name in found)
            if at < pruned:
                worst = max(worst, kept - len(found) // 3)
            shutil.rmtree(folder)
    return worst


@pytest.mark.case("C02")
@pytest.mark.parametrize("journal", ["truncate", "wal"])
def test_a_power_cut_here_and_there_neither_damages_the_file_nor_loses_what_was_to_survive_it(shm, shim, journal):
    assert check_after_cuts(shm, shim, "power", journal, every=9) == 0


@pytest.mark.slow
@pytest.mark.case("C02")
@pytest.mark.parametrize("journal", ["truncate", "wal"])
def test_a_power_cut_at_any_moment_loses_nothing_that_was_to_survive_it(shm, shim, journal):
    assert check_after_cuts(shm, shim, "power", journal, every=1) == 0


@pytest.mark.slow
@pytest.mark.case("C02")
@pytest.mark.parametrize("journal", ["truncate", "wal"])
def test_a_power_cut_at_any_moment_damages_no_file_and_costs_rows_of_a_write_ahead_log_at_most(shm, shim, journal):
    lost = check_after_cuts(shm, shim, "normal", journal, every=1)

    assert lost == 0 if journal == "truncate" else lost > 0


@pytest.mark.case("C05")
def test_a_reader_beside_a_writer_waits_two_seconds_at_most(path):
    assert store.READ_WAIT == 2.0
    assert store.WRITE_WAIT == 2.0


# Upgrades


@pytest.mark.case("C10")
def test_a_file_of_the_first_format_is_read_and_written(path):
    path.write_bytes(gzip.decompress(GOLDEN.read_bytes()))

    with SqliteCache(path) as cache:
        found = cache.get_many([key(number) for number in range(5)])
        cache.set_many(some(7))
        assert cache.stats().rows == 5

    vector, wide, nameless, document = (rows.unpack(key(number), found[key(number)]) for number in range(4))
    assert array.array("f", bytes(vector.payload)).tolist() == [1.0, -2.0, 0.5]
    assert vector[:4] == (rows.Kind.VECTOR, 3, 7, "text-embedding-3-small")
    assert array.array("f", bytes(wide.payload)).tolist() == [at / 8 for at in range(1_536)]
    assert (nameless.tokens, nameless.model) == (None, "모델")
    assert json.loads(bytes(document.payload)) == {"text": "kitten", "usage": {"seconds": 3}}
    assert set(found) == {key(number) for number in range(4)}


@pytest.mark.case("C10")
def test_a_file_of_today_is_laid_out_like_the_one_kept_of_the_first_format(path):
    golden = path.with_name("golden.db")
    golden.write_bytes(gzip.decompress(GOLDEN.read_bytes()))
    with SqliteCache(path) as cache:
        cache.set_many(some(1))

    layouts = []
    for file in (golden, path):
        with contextlib.closing(sqlite3.connect(file)) as connection:
            pragmas = ("application_id", "user_version", "page_size", "auto_vacuum", "encoding")
            layouts.append(
                [connection.execute(f"PRAGMA {pragma}").fetchone() for pragma in pragmas]
                + connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
            )
    assert layouts[0] == layouts[1]


# Side files


@pytest.mark.case("C16")
@pytest.mark.parametrize("gone", [("-wal",), ("-shm",), ("-wal", "-shm")])
def test_without_its_side_files_the_cache_goes_on_and_what_was_in_the_file_stays(path, wal, gone):
    with SqliteCache(path) as cache:
        cache.set_many(some(1, 2, 3))
    with SqliteCache(path) as cache:
        cache.set_many(some(4))
        assert len(cache.get_many([key(4)])) == 1
        for end in gone:
            path.with_name(path.name + end).unlink()

        cache.set_many(some(5))
        found = cache.get_many([key(number) for number in range(1, 6)])

        assert {key(1), key(2), key(3)} <= set(found)
        assert all(found[name] == row(int.from_bytes(name, "big")) for name in found)
        with SqliteCache(path) as other:  # a process that comes later sees the same file
            other.set_many(some(6))
            assert other.get_many([key(1), key(6)]) == some(1, 6)
        assert cache.stats().dropped == 0
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with SqliteCache(path) as cache:
        assert cache.get_many([key(1), key(2), key(3)]) == some(1, 2, 3)


@pytest.mark.case("C14")
def test_where_a_log_may_do_harm_no_write_and_no_checkpoint_of_two_processes_meet(path, monkeypatch):
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 51, 3))
    with SqliteCache(path) as cache:
        cache.set_many(some(0))
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 40, 1))
    monkeypatch.setattr(store, "WRITE_WAIT", 0.05)

    with SqliteCache(path) as cache:
        for number in range(0, 4_000, 400):
            cache.set_many(some(*range(number, number + 400)))
        with cache._store.writing() as connection:
            assert connection.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
        assert path.with_name("cache.db-wal").stat().st_size < 12 * 2**20
        assert path.with_name("cache.db-lock").stat().st_mode & 0o777 == 0o600
        with checkpoints.alone(path, 0.0), pytest.warns(VoxvecWarning, match="another process keeps it locked"):
            cache.set_many(some(9_999))
        assert cache.stats().waiting == 1
        assert cache.stats().journal_mode == "wal"
    with SqliteCache(path) as cache:
        assert cache.stats().rows == 4_001


@pytest.mark.case("C29")
def test_the_log_does_not_grow_behind_a_reader_that_stays(path, wal):
    with SqliteCache(path) as reader, SqliteCache(path) as writer:
        writer.set_many(some(0))
        assert reader.get_many([key(0)]) == some(0)
        longest = 0
        for number in range(0, 6_000, 200):
            writer.set_many(some(*range(number, number + 200)))
            longest = max(longest, path.with_name("cache.db-wal").stat().st_size)
            assert reader.get_many([key(number)]) == some(number)
            assert not any(connection.in_transaction for connection in reader._store._open)

        assert path.stat().st_size > 12 * 2**20
        assert longest < 12 * 2**20


# Many at once


@posix
@pytest.mark.slow
@pytest.mark.case("C13")
def test_eight_processes_with_a_thousand_overlapping_writes_each_lose_no_row(path):
    began = time.monotonic()
    run(
        """
        store.WRITE_WAIT = store.READ_WAIT = 30.0
        children = []
        for number in range(8):
            child = os.fork()
            if not child:
                with SqliteCache(path) as cache:
                    for at in range(number * 500, number * 500 + 1_000):
                        cache.set_many(some(at))
                    os._exit(cache.stats().dropped or cache.stats().waiting)
            children.append(child)
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
        """,
        path,
    )

    with SqliteCache(path) as cache:
        assert cache.stats().rows == 4_500
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert time.monotonic() - began < 60


@pytest.mark.case("C13")
def test_processes_with_overlapping_writes_lose_no_row_even_if_each_gives_up_early(path):
    run(
        """
        warnings.simplefilter("ignore", VoxvecWarning)
        store.WRITE_WAIT = sqlite.SHORT_WAIT = 0.001
        children = []
        for number in range(4):
            child = os.fork()
            if not child:
                cache = SqliteCache(path)
                for at in range(number * 50, number * 50 + 100):
                    cache.set_many(some(at))
                store.WRITE_WAIT = sqlite.SHORT_WAIT = 30.0
                cache.close()
                os._exit(cache.stats().dropped or cache.stats().waiting)
            children.append(child)
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
        """,
        path,
    )

    with SqliteCache(path) as cache:
        assert cache.stats().rows == 250


# The end


@pytest.mark.case("C32")
@pytest.mark.parametrize("locked", [False, True])
@pytest.mark.parametrize("end", ["", "del cache"])
def test_rows_that_wait_when_the_interpreter_ends_are_written_or_dropped_in_silence(path, locked, end):
    run(
        f"""
        import gc

        warnings.simplefilter("ignore", VoxvecWarning)
        store.WRITE_WAIT = 0.01
        cache = SqliteCache(path)
        cache.set_many(some(1))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        cache.set_many(some(2, 3))
        assert cache.stats().waiting == 2
        if not {locked}:
            other.execute("ROLLBACK")
        {end}
        gc.collect()
        """,
        path,
    )

    with SqliteCache(path) as cache:
        assert cache.stats().rows == (1 if locked else 3)


@pytest.mark.case("C32")
def test_the_end_waits_for_a_lock_less_than_a_second():
    assert 2 * store.SHORT_WAIT < 1.0


# Flipped bits


def flip(path, flips, seed):
    """Flip one bit anywhere in a file of rows, again and again; how often a row was lost, and how often it changed."""
    everything = {key(number): row(number, [1, 30, 700, 9_000][number % 4]) for number in range(24)}
    with SqliteCache(path) as cache:
        cache.set_many(everything)
    content, chance = path.read_bytes(), random.Random(seed)  # noqa: S311 -- reproducible
    lost = wrong = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VoxvecWarning)
        for _ in range(flips):
            at, bit = chance.randrange(len(content)), 1 << chance.randrange(8)
            path.write_bytes(content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :])
            with contextlib.suppress(CacheError), SqliteCache(path) as cache:
                found = cache.get_many(list(everything))
                lost += any(found.get(name) != everything[name] for name in everything)
                wrong += any(
                    rows.unpack(name, found[name]) is not None and found[name] != everything[name] for name in found
                )
            for file in path.parent.iterdir():
                file.unlink()
    return lost, wrong


@pytest.mark.case("C08", "C09")
def test_a_flipped_bit_gives_a_miss_or_the_right_row(path):
    lost, wrong = flip(path, 250, seed=3)

    assert wrong == 0
    assert lost > 50


@pytest.mark.slow
@pytest.mark.case("C08", "C09")
def test_ten_thousand_flipped_bits_give_misses_or_the_right_rows(path, monkeypatch):
    monkeypatch.setattr(place, "is_local", lambda _: True)  # else half of the time goes into asking
    assert flip(path, 10_000, seed=4)[1] == 0


# Planted rows, and keys


class Explosive:
    def __reduce__(self):
        return (pytest.fail, ("somebody's bytes were executed",))


@pytest.mark.case("C28")
@pytest.mark.parametrize("planted", ["random", "pickle", "another", "narrow", "long", "text", "document"])
def test_a_planted_row_is_bought_again_and_never_believed(twin, path, vectors_of, planted):
    fake = FakeOpenAI()
    with SqliteCache(path) as cache:
        embedder = twin.embedder(client=twin.client(fake), cache=cache)
        embedder.embed(["a", "b"])
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            stored = dict(other.execute("SELECT key, value FROM rows ORDER BY id").fetchall())
            name, honest = next(iter(stored.items()))
            head = {"kind": rows.Kind.VECTOR, "width": 1_536, "tokens": 1, "model": "m"}
            value = {
                "random": os.urandom(len(honest)),
                "pickle": pickle.dumps(Explosive()),
                "another": list(stored.values())[1],
                "narrow": rows.pack(name, bytes(16), **{**head, "width": 4}),
                "long": honest + b"\0",
                "text": "SELECT 1",
                "document": rows.pack(name, b"[1,2,3]", **{**head, "kind": rows.Kind.DOCUMENT, "width": 7}),
            }[planted]
            other.execute("UPDATE rows SET value = ? WHERE key = ?", (value, name))

        assert embedder.embed(["a", "b"]).array.tolist() == vectors_of(["a", "b"])
        assert fake.billed == 3
        assert embedder.embed(["a", "b"]).usage.requests == 0


def name_of(text="a", model="text-embedding-3-small", dims=None, **settings):
    known = vv.models.find(model, kind="embedding") if isinstance(model, str) else model
    return Keys(Settings(**{"model": known.with_dims(dims), "origin": "https://one", **settings})).of(text.encode())


@pytest.mark.case("C20")
def test_requests_that_differ_have_different_keys():
    fixed = vv.EmbeddingModel(name="fixed", dims=8, native_dims=8, dims_parameter="dimensions")
    names = [
        name_of(),
        name_of(model="text-embedding-3-large"),
        name_of(origin="https://two"),
        name_of(namespace="tenant"),
        name_of(model=fixed),
        name_of(model=fixed, dims=4),
        *(name_of(text) for text in ("ab", "a-b", '["a","b"]', '["ab"]', "a,b", "a b", "b")),
    ]

    assert len(set(names)) == len(names)


@pytest.mark.case("C21")
def test_texts_that_only_look_alike_have_different_keys():
    name = "\u00e9"
    alike = [name, unicodedata.normalize("NFD", name), name + "\n", "\ufeff" + name, "\u200b" + name, name + " "]

    assert len({name_of(text) for text in alike}) == len(alike)


@pytest.mark.case("C22")
def test_a_key_of_an_account_is_not_part_of_a_rows_key_and_a_namespace_is(twin, server, path):
    with SqliteCache(path) as cache:
        for wanted in (
            {"api_key": "sk-one"},
            {"api_key": "sk-two"},
            {"api_key": "sk-two", "namespace": "x"},
            {"api_key": "sk-one", "namespace": "x"},
        ):
            twin.embedder(cache=cache, **wanted).embed(["a"])

    assert len(server.asked) == 2


# Room


@pytest.mark.case("C24")
def test_rows_of_the_running_call_stay_in_a_cache_that_is_too_small_for_them(twin, path, vectors_of):
    fake = FakeOpenAI()
    model = vv.models.find("text-embedding-3-small", kind="embedding").model_copy(update={"max_items": 10})
    with SqliteCache(path, max_bytes=300_000) as cache:
        embedder = twin.embedder(model, client=twin.client(fake), cache=cache)
        embedder.embed(["old"])
        texts = [str(number) for number in range(100)]
        embedder.embed(texts)
        size = cache.stats().bytes

        assert size > 600_000
        assert embedder.embed(texts).usage.requests == 0
        assert embedder.embed(["old"]).usage.requests == 1
        assert cache.stats().bytes <= 300_000 < size


@pytest.mark.case("C24")
def test_rows_of_calls_that_overlap_stay_until_the_earlier_one_is_over(path):
    with SqliteCache(path, max_bytes=0) as cache:
        with cache.keeping():
            cache.set_many(some(1))
            with cache.keeping():
                cache.set_many(some(2))
            cache.set_many(some(3))
            assert cache.get_many([key(1), key(2), key(3)]) == some(1, 2, 3)
        with cache.keeping():
            cache.set_many(some(4))
            cache.set_many(some(5))
        assert cache.get_many([key(number) for number in range(6)]) == some(4, 5)


# Answers that are none


@pytest.mark.case("F66")
@pytest.mark.parametrize("name", [name for name, mutation in MUTATIONS.items() if not mutation.benign])
def test_a_spoilt_answer_leaves_the_cache_as_it_was(twin, path, clock, vectors_of, name):
    fake = FakeOpenAI()
    with SqliteCache(path) as cache:
        embedder = twin.embedder(dimensions=8, client=twin.client(fake), cache=cache)
        embedder.embed(["known"])
        fake.misbehave(Fault(spoil=name), times=None)
        with contextlib.suppress(vv.VoxvecError):
            embedder.embed(["known", "a", "b", "c"])
        assert cache.stats().rows == 1
        with contextlib.closing(sqlite3.connect(path)) as other:
            assert other.execute("SELECT count(*) FROM rows").fetchone() == (1,)

        healthy = FakeOpenAI()
        again = twin.embedder(dimensions=8, client=twin.client(healthy), cache=cache).embed(["known", "a", "b", "c"])
        assert again.array.tolist() == vectors_of(["known", "a", "b", "c"], 8)
        assert healthy.billed == 3


# The event loop


@pytest.mark.case("C33")
def test_no_cache_is_ever_asked_in_the_thread_of_the_event_loop(tmp_path):
    threads, fake = set(), FakeOpenAI()

    class Watched(MemoryCache):
        def get_many(self, keys):
            threads.add(threading.get_ident())
            return super().get_many(keys)

        def set_many(self, rows):
            threads.add(threading.get_ident())
            super().set_many(rows)

        def discard(self, keys):
            threads.add(threading.get_ident())
            super().discard(keys)

        def lease(self, keys, seconds):
            threads.add(threading.get_ident())
            return dict.fromkeys(keys)

        def release(self, keys):
            threads.add(threading.get_ident())

    cache, recording = Watched(), tmp_path / "a.wav"
    with wave.open(str(recording), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(32_000))

    async def main():
        embedder = vv.AsyncEmbedder("text-embedding-3-small", dimensions=8, client=fake.async_client(), cache=cache)
        for _ in range(2):
            await embedder.embed([str(number) for number in range(2_048)])
        await embedder.plan(["a"])
        async for _ in embedder.stream(["b", "c"]):
            pass
        transcriber = vv.AsyncTranscriber(client=fake.async_client(), cache=cache)
        for _ in range(2):
            await transcriber.transcribe(recording)
        return threading.get_ident()

    loop = anyio.run(main)

    assert cache.stats().hits >= 2_049
    assert threads
    assert loop not in threads

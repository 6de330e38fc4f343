"""The cache in a file: where it may stand, and what happens when the file is sick."""

import contextlib
import os
import pickle
import resource
import sqlite3
import stat
import tempfile
import threading
import time
import warnings

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from voxvec import rows
from voxvec.caches import MemoryCache, SqliteCache, backlog, place, schema, sqlite, store
from voxvec.errors import CacheError, ConfigError, VoxvecWarning

posix = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions as POSIX knows them")


def key_of(number):
    return number.to_bytes(32, "big")


def row_of(number, width=500):
    payload = bytes([number % 251, 1, 2, 3]) * width
    return rows.pack(key_of(number), payload, kind=rows.Kind.VECTOR, width=width, tokens=number, model="m")


def some(*numbers, width=500):
    return {key_of(number): row_of(number, width) for number in numbers}


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def found(cache, *numbers):
    return cache.get_many([key_of(number) for number in numbers])


@contextlib.contextmanager
def said_once(match):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield
    assert [warning.category for warning in said] == [VoxvecWarning]
    assert match in str(said[0].message)


@contextlib.contextmanager
def foreign(path):
    """A connection of somebody else, as another process would have it."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache.db"


@pytest.fixture
def cache(path):
    with SqliteCache(path) as cache:
        yield cache


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(store, "READ_WAIT", 0.01)
    monkeypatch.setattr(store, "WRITE_WAIT", 0.01)
    monkeypatch.setattr(sqlite, "SHORT_WAIT", 0.01)


# The file and its place


def test_the_file_is_made_as_it_should_be(cache, path):
    cache.set_many(some(1))

    with foreign(path) as other:
        answers = [
            other.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("application_id", "user_version", "page_size", "auto_vacuum", "integrity_check")
        ]
    assert answers == [schema.APPLICATION, 1, 32768, 2, "ok"]


def test_rows_outlive_the_cache_object(path):
    with SqliteCache(path) as cache:
        cache.set_many(some(1, 2))
    with SqliteCache(str(path)) as cache:
        assert found(cache, 1, 2, 3) == some(1, 2)


def test_a_closed_cache_opens_again(cache):
    cache.set_many(some(1))
    cache.close()

    assert found(cache, 1) == some(1)


def test_closing_while_another_thread_reads_does_it_no_harm(cache):
    cache.set_many(some(1))

    with cache._store.reading() as connection:
        cache.close()
        assert connection.execute("SELECT count(*) FROM rows").fetchone() == (1,)

    with pytest.raises(sqlite3.ProgrammingError):
        connection.execute("SELECT 1")


def test_it_pickles_as_its_settings(path):
    with SqliteCache(path, max_bytes=10**6, durability="power") as cache:
        cache.set_many(some(1))
        with pickle.loads(pickle.dumps(cache)) as twin:  # noqa: S301 -- our own bytes
            assert (twin.path, twin._max_bytes, twin._durability) == (path, 10**6, "power")
            assert found(twin, 1) == some(1)


@pytest.mark.parametrize(
    ("durability", "version", "sync"),
    [
        pytest.param("normal", (3, 51, 3), 1, id="normal-log"),
        pytest.param("power", (3, 51, 3), 2, id="power-log"),
        pytest.param("normal", (3, 40, 1), 2, id="normal-journal"),
        pytest.param("power", (3, 40, 1), 2, id="power-journal"),
    ],
)
def test_durability_decides_how_a_commit_is_synced_where_that_does_not_risk_the_file(
    path, monkeypatch, durability, version, sync
):
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    with SqliteCache(path, durability=durability) as cache, cache._store.writing() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (sync,)


def test_an_unknown_durability_is_refused(path):
    with pytest.raises(ConfigError, match="not 'eternal'"):
        SqliteCache(path, durability="eternal")


def test_a_relative_path_stays_in_the_folder_it_was_given_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cache = SqliteCache("a.db")
    monkeypatch.chdir("/")

    assert cache.path == tmp_path / "a.db"


def test_a_tilde_is_the_users_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))

    assert SqliteCache("~/a.db").path == tmp_path / "a.db"


def test_a_path_may_hold_what_a_url_could_not(tmp_path):
    with SqliteCache(tmp_path / "a?mode=memory#b %41.db") as cache:
        cache.set_many(some(1))

    assert [file.name for file in tmp_path.iterdir() if file.suffix == ".db"] == ["a?mode=memory#b %41.db"]


@pytest.mark.case("C19")
@posix
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_the_owner_may_read_what_was_made(tmp_path, umask):
    path = tmp_path / "new" / "deep" / "cache.db"
    before = os.umask(umask)
    try:
        with SqliteCache(path) as cache:
            cache.set_many(some(1))
            assert {mode_of(file) for file in path.parent.iterdir()} == {0o600}
    finally:
        os.umask(before)
    assert [mode_of(path.parent), mode_of(path.parent.parent)] == [0o700, 0o700]


@posix
def test_an_existing_folder_keeps_its_permissions(tmp_path):
    tmp_path.chmod(0o755)
    with SqliteCache(tmp_path / "cache.db") as cache:
        cache.set_many(some(1))

    assert mode_of(tmp_path) == 0o755


def refused(cache, match):
    for use in (lambda: found(cache, 1), lambda: cache.set_many(some(1)), lambda: cache.discard([key_of(1)])):
        with pytest.raises(CacheError, match=match):
            use()


@pytest.mark.case("C18")
@posix
def test_a_symbolic_link_is_refused(tmp_path, cache, path):
    path.symlink_to(tmp_path / "elsewhere.db")

    refused(cache, "is a symbolic link")
    assert not (tmp_path / "elsewhere.db").exists()


@pytest.mark.case("C18")
@posix
def test_a_folder_open_to_everybody_is_refused_unless_sticky(tmp_path, cache, path):
    tmp_path.chmod(0o777)
    refused(cache, "open to everybody")
    assert not path.exists()

    tmp_path.chmod(0o1777)
    cache.set_many(some(1))
    assert found(cache, 1) == some(1)


@pytest.mark.case("C18")
@posix
def test_a_file_of_another_user_is_refused(cache, path, monkeypatch):
    path.touch()
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)

    refused(cache, "belongs to another user")


def test_a_file_that_may_not_be_read_is_refused(cache, path, monkeypatch):
    path.touch()
    monkeypatch.setattr(os, "access", lambda *_: False)

    refused(cache, "may not be read")


def test_a_folder_is_no_cache(cache, path):
    path.mkdir()

    refused(cache, "is no regular file")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()

    refused(SqliteCache(tmp_path / "file" / "cache.db"), "no cache can be at")


def test_a_folder_that_may_not_be_written_is_refused(cache, monkeypatch):
    def forbidden(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", forbidden)

    refused(cache, "Permission denied; choose another path")


@pytest.mark.case("C07")
@pytest.mark.parametrize("content", [b"x", b"hello\n" * 1000, os.urandom(5000), b"SQLite format 3\0" + bytes(5000)])
def test_a_file_that_is_no_database_is_refused_untouched(cache, path, content):
    path.write_bytes(content)

    refused(cache, "is no cache of voxvec, and was not touched")
    assert path.read_bytes() == content


@pytest.mark.case("C07")
@pytest.mark.parametrize("pragma", ["PRAGMA user_version = 1", "PRAGMA application_id = 7"])
def test_somebody_elses_database_is_refused_untouched(cache, path, pragma):
    with foreign(path) as other:
        other.execute("CREATE TABLE contacts (name)")
        other.execute(pragma)
    content = path.read_bytes()

    refused(cache, "is no cache of voxvec, and was not touched")
    with pytest.raises(CacheError, match="is no cache of voxvec"):
        cache.stats()
    assert path.read_bytes() == content


def test_an_empty_file_becomes_a_cache(cache, path):
    path.touch()
    cache.set_many(some(1))

    assert found(cache, 1) == some(1)


@pytest.mark.case("C10")
def test_a_file_that_could_not_be_finished_is_still_empty(cache, path, monkeypatch):
    monkeypatch.setattr(schema, "_TABLE", "CREATE nonsense")
    with said_once("syntax error"):
        cache.set_many(some(1))
    assert path.stat().st_size == 0

    monkeypatch.undo()
    cache.set_many(some(1))
    assert found(cache, 1) == some(1)


def test_a_file_that_somebody_else_makes_this_very_moment_is_used(cache, path, monkeypatch):
    real = os.open

    def slower(name, flags, mode):
        monkeypatch.undo()
        os.close(real(name, flags, mode))
        return real(name, flags, mode)

    monkeypatch.setattr(os, "open", slower)
    cache.set_many(some(1))

    assert found(cache, 1) == some(1)


@pytest.mark.parametrize("theirs", [True, False])
def test_a_file_that_somebody_else_fills_this_very_moment_is_looked_at_again(cache, path, monkeypatch, theirs):
    real = store.is_ours

    def slower(connection, where):
        ours = real(connection, where)
        monkeypatch.undo()
        if theirs:
            with foreign(path) as other:
                other.execute("CREATE TABLE contacts (name)")
        else:
            with SqliteCache(path) as other:
                other.set_many(some(1))
        return ours

    monkeypatch.setattr(store, "is_ours", slower)

    if theirs:
        refused(cache, "is no cache of voxvec")
    else:
        assert found(cache, 1) == some(1)


@pytest.mark.case("C28")
@pytest.mark.parametrize(
    "planted",
    [
        "CREATE TRIGGER t AFTER INSERT ON rows BEGIN DELETE FROM rows; END",
        "CREATE VIEW v AS SELECT * FROM rows",
        "CREATE TABLE more (x)",
    ],
)
def test_what_somebody_planted_in_the_file_does_not_run(path, planted):
    with SqliteCache(path) as cache:
        cache.set_many(some(1))
    with foreign(path) as other:
        other.execute(planted)

    refused(SqliteCache(path), "was changed by another program")


@pytest.mark.case("C28")
@pytest.mark.parametrize("value", ["a text", "no utf-8: '||x'ff'||'", None, 5, 1.5])
def test_a_planted_value_that_is_no_bytes_is_a_miss(cache, path, value):
    cache.set_many(some(1, 2))
    with foreign(path) as other:
        other.execute("PRAGMA ignore_check_constraints = ON")
        with contextlib.suppress(sqlite3.IntegrityError):
            other.execute("UPDATE rows SET value = ? WHERE key = ?", (value, key_of(1)))

    assert found(cache, 2) == some(2)
    assert all(isinstance(row, bytes) for row in found(cache, 1).values())


# A later version


@pytest.mark.case("C11")
def test_a_file_of_a_later_version_is_left_alone(cache, path):
    with foreign(path) as other:
        other.execute(f"PRAGMA application_id = {schema.APPLICATION}")
        other.execute("PRAGMA user_version = 2")
        other.execute("CREATE TABLE better_rows (x)")
    content = path.read_bytes()

    with said_once("a later version of voxvec made it"):
        assert found(cache, 1) == {}
        cache.set_many(some(1))
        assert found(cache, 1) == {}

    with pytest.raises(CacheError, match="later version"):
        cache.stats()
    assert path.read_bytes() == content
    assert cache._counts["dropped"] == 1


# Damage


def flip(path, at, bits=0xFF):
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ bits]))


def test_a_flipped_byte_in_a_row_makes_that_row_worthless_and_no_other(cache, path):
    cache.set_many(some(1, 2))
    flip(path, path.read_bytes().index(row_of(1)) + 1000)

    answer = found(cache, 1, 2)

    assert rows.unpack(key_of(1), answer[key_of(1)]) is None
    assert rows.unpack(key_of(2), answer[key_of(2)]) is not None


def spoil_tables(path):
    """Break every page but the first, which tells whose file it is."""
    with path.open("r+b") as file:
        pages = path.stat().st_size // 32768
        for page in range(1, pages):
            file.seek(page * 32768)
            file.write(b"\xff" * 200)


def spoil_all(path):
    path.write_bytes(b"\xff" * path.stat().st_size)


@pytest.mark.case("C07", "C09")
@pytest.mark.parametrize(("spoil", "cold"), [(spoil_tables, True), (spoil_all, False)])
@pytest.mark.parametrize("use", ["get_many", "set_many", "discard"])
def test_a_file_damaged_after_first_use_is_set_aside_and_a_new_one_begun(cache, path, use, spoil, cold):
    cache.set_many(some(*range(50)))
    found(cache, 1)
    if cold:  # or SQLite would go on with the pages it still has in memory
        cache.close()
    spoil(path)

    with said_once("cache.db.damaged-1"):
        if use == "get_many":
            assert found(cache, *range(50)) == {}
        elif use == "set_many":
            cache.set_many(some(60))
        else:
            cache.discard([key_of(1)])

    cache.set_many(some(61))
    assert found(cache, 61) == some(61)
    assert path.with_name("cache.db.damaged-1").exists()
    assert cache.stats().dropped == 0


@pytest.mark.case("C09")
def test_a_file_found_damaged_at_first_use_is_set_aside(path):
    with SqliteCache(path) as cache:
        cache.set_many(some(*range(50)))
    spoil_tables(path)

    with SqliteCache(path) as cache, said_once("damaged-1"):
        cache.set_many(some(*range(50)))
        assert found(cache, *range(50)) == some(*range(50))


def test_each_damaged_file_is_kept(cache, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VoxvecWarning)
        for _ in range(2):
            cache.set_many(some(*range(50)))
            spoil_tables(path)
            assert found(cache, *range(50)) == {}

    assert {file.name for file in path.parent.iterdir()} >= {"cache.db.damaged-1", "cache.db.damaged-2"}


def test_a_damaged_file_is_set_aside_with_what_belongs_to_it(path):
    for end in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + end).write_text(end)

    aside = place.move_aside(path)

    assert sorted(file.name for file in path.parent.iterdir()) == sorted(
        aside.name + end for end in ("", "-wal", "-shm", "-journal")
    )


def test_a_damaged_file_that_somebody_else_set_aside_is_not_looked_for(cache, path):
    cache.set_many(some(1))
    old = place.identity(path)
    path.rename(path.with_name("aside"))
    with SqliteCache(path) as other:
        other.set_many(some(2))

    assert cache._store.move_aside(old) is None
    assert found(cache, 1, 2) == some(2)


def test_a_file_that_somebody_else_sets_aside_first_is_simply_gone(cache, path, monkeypatch):
    cache.set_many(some(*range(50)))
    cache.close()
    spoil_tables(path)
    real = cache._store.move_aside

    def slower(damaged):
        path.rename(path.with_name("aside"))
        return real(damaged)

    monkeypatch.setattr(cache._store, "move_aside", slower)

    assert found(cache, *range(50)) == {}
    cache.set_many(some(1))
    assert found(cache, 1) == some(1)


def test_a_damaged_file_in_use_stays_for_now(cache, path, impatient):
    cache.set_many(some(*range(50)))
    with foreign(path) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM sqlite_master").fetchone()
        spoil_tables(path)
        with said_once("damaged, and in use"):
            assert found(cache, *range(50)) == {}
    assert path.exists()
    assert not path.with_name("cache.db.damaged-1").exists()


def test_maintenance_repairs_too(cache, path):
    cache.set_many(some(*range(50)))
    spoil_tables(path)

    with said_once("damaged-1"):
        assert cache.stats().rows == 0


# Gone or replaced


@pytest.mark.case("C17")
def test_a_file_deleted_while_open_is_made_again(cache, path):
    cache.set_many(some(1))
    found(cache, 1)
    path.unlink()

    cache.set_many(some(2))

    assert found(cache, 1, 2) == some(2)
    assert mode_of(path) == 0o600


@pytest.mark.case("C17")
def test_a_file_replaced_while_open_is_the_one_used(cache, path, tmp_path):
    cache.set_many(some(1))
    found(cache, 1)
    with SqliteCache(tmp_path / "other.db") as other:
        other.set_many(some(2))
    (tmp_path / "other.db").rename(path)

    assert found(cache, 1, 2) == some(2)
    cache.set_many(some(3))
    assert found(cache, 1, 2, 3) == some(2, 3)


def test_a_file_replaced_while_waiting_for_the_lock_is_the_one_written(cache, path, monkeypatch):
    cache.set_many(some(1))
    real, asked = place.identity, []

    def replaced_once(where):
        if not asked:
            asked.append(where)
            path.unlink()
        return real(where)

    monkeypatch.setattr(place, "identity", replaced_once)
    cache.set_many(some(2))

    assert found(cache, 1, 2) == some(2)


def test_a_file_replaced_by_a_strangers_after_first_use_stops_the_cache_and_not_the_call(cache, path):
    cache.set_many(some(1))
    path.unlink()
    path.write_bytes(b"precious" * 100)

    with said_once("was not touched"):
        assert found(cache, 1) == {}
        cache.set_many(some(1))

    assert path.read_bytes() == b"precious" * 100


# Locked, full, read-only


@pytest.mark.case("C05")
def test_a_reader_gives_up_on_a_lock_and_misses(cache, path, impatient):
    cache.set_many(some(1))
    with foreign(path) as other:
        other.execute("BEGIN EXCLUSIVE")
        with said_once("another process keeps it locked"):
            assert found(cache, 1) == {}
    assert found(cache, 1) == some(1)


@pytest.mark.case("C05")
def test_rows_that_a_lock_keeps_out_wait_are_found_and_are_written_with_the_next(cache, path, impatient):
    cache.set_many(some(1))
    with foreign(path) as other:
        other.execute("BEGIN IMMEDIATE")
        with said_once("another process keeps it locked"):
            cache.set_many(some(2, 3))
            cache.set_many(some(3, width=600))
            cache.set_many(some(2, width=400))
            cache.discard([key_of(1)])
        with pytest.raises(CacheError, match="cannot be used now: another process keeps it locked"):
            cache.clear()
        assert found(cache, 1, 2, 3) == some(1, 2) | some(3, width=600)
        assert (cache.stats().rows, cache.stats().waiting, cache.stats().dropped) == (1, 2, 0)

    cache.set_many(some(4))

    assert (cache.stats().rows, cache.stats().waiting, cache.stats().stored) == (4, 0, 4)
    cache.close()
    assert found(cache, 1, 2, 3, 4) == some(1, 2, 4) | some(3, width=600)


@pytest.mark.case("C05")
def test_no_more_than_a_thousand_rows_wait_and_the_rest_is_counted_as_dropped(cache, path, impatient):
    cache.set_many(some(0))
    with foreign(path) as other:
        other.execute("BEGIN EXCLUSIVE")
        with said_once("1,000 rows at most"):
            cache.set_many(some(*range(1, 701), width=1))
            cache.set_many(some(*range(601, 1_201), width=1))
    assert (cache.stats().waiting, cache.stats().dropped) == (1_000, 200)

    cache.close()

    assert cache.stats().rows == 1_001
    assert (cache.stats().waiting, cache.stats().stored) == (0, 1_001)


def test_no_more_waits_than_there_is_room_for(cache, path, impatient, monkeypatch):
    monkeypatch.setattr(backlog, "MOST_BYTES", 3 * len(row_of(1)))
    cache.set_many(some(0))
    with foreign(path) as other, said_once("locked"):
        other.execute("BEGIN IMMEDIATE")
        cache.set_many(some(1, 2, 3, 4))
        cache.discard([key_of(1)])
        cache.set_many(some(5, 6))
        assert set(found(cache, *range(7))) == {key_of(number) for number in (0, 2, 3, 5)}
        cache.close()  # in vain

    assert (cache.stats().waiting, cache.stats().dropped) == (0, 5)
    assert found(cache, *range(7)) == some(0)


def test_what_waits_is_forgotten_with_the_rest(cache, path, impatient):
    cache.set_many(some(0))
    with foreign(path) as other, said_once("locked"):
        other.execute("BEGIN IMMEDIATE")
        cache.set_many(some(1, 2))

    assert cache.clear() == 3
    assert found(cache, 0, 1, 2) == {}


def test_a_thread_that_holds_up_the_others_does_not_hold_up_the_end(cache, impatient):
    cache.set_many(some(0))
    cache._backlog.wait(some(1))
    begun, over = threading.Event(), threading.Event()

    def write():
        with cache._store.writing():
            begun.set()
            over.wait(20)

    thread = threading.Thread(target=write)
    thread.start()
    begun.wait(20)

    with said_once("another thread is writing"):
        cache.set_many(some(2))
    over.set()
    thread.join()
    assert cache.stats().waiting == 2


def test_a_commit_that_readers_block_is_taken_back(cache, path, impatient):
    cache.set_many(some(1))
    with foreign(path) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM rows").fetchone()
        with said_once("locked"):
            cache.set_many(some(2))
            assert other.execute("SELECT count(*) FROM rows").fetchone() == (1,)
    cache.set_many(some(3))

    assert found(cache, 1, 2, 3) == some(1, 2, 3)


def test_those_who_queue_behind_a_writer_that_waited_in_vain_do_not_wait_again(cache, path, monkeypatch):
    monkeypatch.setattr(store, "WRITE_WAIT", 0.5)
    cache.set_many(some(0))
    cache.close()
    with foreign(path) as other, warnings.catch_warnings():
        warnings.simplefilter("ignore", VoxvecWarning)
        other.execute("BEGIN IMMEDIATE")
        threads = [threading.Thread(target=cache.set_many, args=(some(number),)) for number in range(1, 9)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert time.monotonic() - began < 6 * 0.5  # each by itself: 8
    assert cache.stats().waiting == 8


def test_handles_caught_in_use_by_a_fork_are_not_used_by_the_child(cache, monkeypatch):
    monkeypatch.setattr(store, "FORK_WAIT", 0.0)
    cache.set_many(some(1))

    with cache._store.reading():
        cache._store.hold()
        cache._store.release(child=True)

    with said_once("forked in the middle"):
        assert found(cache, 1) == {}
        cache.set_many(some(2))


@pytest.mark.case("C03")
def test_a_full_disk_drops_rows_and_nothing_else(cache):
    cache.set_many(some(1))
    with cache._store.writing() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")

    with said_once("full"):
        cache.set_many(some(*range(100, 200)))
        cache.set_many(some(*range(100, 200)))

    assert found(cache, 1, 150) == some(1)
    assert cache.stats().dropped == 200
    connection.execute("PRAGMA max_page_count = 1073741823")
    cache.set_many(some(*range(100, 200)))
    assert found(cache, 150) == some(150)


@pytest.mark.case("C03")
def test_a_disk_that_takes_no_more_bytes_drops_rows_and_nothing_else(cache, path):
    cache.set_many(some(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, hard))
    try:
        with said_once("out of use"):
            cache.set_many(some(*range(100, 200)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    cache.set_many(some(2))
    assert found(cache, 1, 2, 150) == some(1, 2)
    with foreign(path) as other:
        assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_disk_that_fails_to_make_the_file_is_a_miss(cache, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "open", full)

    with said_once("No space left"):
        assert found(cache, 1) == {}
        cache.set_many(some(1))


@pytest.fixture
def own_folder():
    """A folder of a user to whom permissions apply, unlike root."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as folder:
        if root:
            os.chown(folder, 65534, -1)
            os.seteuid(65534)
        try:
            yield place.find(folder)
        finally:
            if root:
                os.seteuid(0)


@pytest.mark.case("C04")
@posix
@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_may_only_be_read_is_read_and_new_rows_are_dropped(own_folder, what):
    path = own_folder / "cache.db"
    with SqliteCache(path) as cache:
        cache.set_many(some(1))
    path.with_name("cache.db-journal").unlink(missing_ok=True)
    (path if what == "file" else own_folder).chmod(0o500)

    with SqliteCache(path) as cache, said_once("out of use"):
        assert found(cache, 1, 2) == some(1)
        cache.set_many(some(2))
        cache.set_many(some(3))
        assert found(cache, 1, 2) == some(1)
        assert cache.stats().dropped == 2
    own_folder.chmod(0o700)


def test_what_is_no_key_is_the_callers_mistake(cache):
    with pytest.raises(sqlite3.ProgrammingError):
        cache.get_many([object()])


# Size and age


def in_file(path):
    return path.stat().st_size


@pytest.mark.case("C24")
def test_beyond_its_size_the_oldest_rows_leave_and_never_those_just_stored(path):
    limit = 2_000_000
    with SqliteCache(path, max_bytes=limit) as cache:
        for start in range(0, 2_000, 200):
            batch = some(*range(start, start + 200))
            cache.set_many(batch)
            assert cache.get_many(list(batch)) == batch
        left = found(cache, *range(2_000))
        assert cache.stats().bytes <= limit
    numbers = sorted(int.from_bytes(key, "big") for key in left)
    assert numbers == list(range(numbers[0], 2_000))
    assert len(numbers) > 600
    assert in_file(path) < limit + 600_000


def test_one_batch_larger_than_the_limit_is_kept_whole(path):
    with SqliteCache(path, max_bytes=0) as cache:
        cache.set_many(some(*range(300)))
        assert found(cache, *range(300)) == some(*range(300))
        cache.set_many(some(301))
        assert found(cache, *range(302)) == some(301)


def test_pruning_to_a_size_removes_the_oldest_and_gives_the_room_back(cache, path):
    for start in range(0, 3_000, 500):
        cache.set_many(some(*range(start, start + 500), width=100))
    before = in_file(path)

    removed = cache.prune(max_bytes=500_000)

    assert set(found(cache, *range(3_000))) == {key_of(number) for number in range(removed, 3_000)}
    assert 1_500 < removed < 3_000
    assert before > 1_500_000
    assert in_file(path) <= 500_000
    assert cache.stats().rows == 3_000 - removed


@pytest.mark.case("C25")
@pytest.mark.parametrize("wall", [0.0, 4e9])
def test_pruning_by_age_removes_what_was_stored_longer_ago(cache, monkeypatch, wall):
    clock = [1_700_000_000.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    cache.set_many(some(*range(1_500), width=10))
    clock[0] += 1_000
    cache.set_many(some(2_000))
    clock[0] += 1_000

    assert cache.prune(older_than=1_500) == 1_500
    assert found(cache, 0, 1_499, 2_000) == some(2_000)
    clock[0] = wall
    assert cache.prune(older_than=10**10) == 0


def test_pruning_without_limits_only_gives_room_back(cache, path):
    cache.set_many(some(*range(1_000), width=100))
    cache.discard([key_of(number) for number in range(900)])
    before = in_file(path)

    assert cache.prune() == 0
    assert in_file(path) < before / 2
    assert found(cache, 950) == some(950, width=100)


def test_pruning_by_a_negative_age_is_refused(cache):
    with pytest.raises(ConfigError, match="older_than must be 0 or more"):
        cache.prune(older_than=-1)


def test_a_cleared_file_is_small(cache, path):
    cache.set_many(some(*range(2_500), width=100))

    assert cache.clear() == 2_500
    assert in_file(path) < 300_000


# Journal


@pytest.mark.case("C14")
@pytest.mark.parametrize(
    ("version", "mode"),
    [
        ((3, 6, 23), "truncate"),
        ((3, 7, 0), "truncate"),
        ((3, 34, 1), "truncate"),
        ((3, 40, 1), "truncate"),
        ((3, 44, 5), "truncate"),
        ((3, 44, 6), "wal"),
        ((3, 44, 9), "wal"),
        ((3, 45, 0), "truncate"),
        ((3, 49, 9), "truncate"),
        ((3, 50, 6), "truncate"),
        ((3, 50, 7), "wal"),
        ((3, 51, 0), "truncate"),
        ((3, 51, 2), "truncate"),
        ((3, 51, 3), "wal"),
        ((3, 52, 0), "wal"),
        ((4, 0, 0), "wal"),
    ],
)
def test_a_write_ahead_log_is_used_only_where_it_is_sound(version, mode):
    found, why = place.journal_mode_for(version)

    assert found == mode
    assert ".".join(map(str, version)) in why


@pytest.fixture
def linked(monkeypatch):
    return lambda *version: monkeypatch.setattr(sqlite3, "sqlite_version_info", version)


@pytest.mark.case("C14")
def test_a_new_file_gets_the_journal_that_suits_the_linked_sqlite(cache, linked):
    linked(3, 40, 1)

    assert "3.40.1 may corrupt" in cache.journal_reason
    assert cache.stats().journal_mode == "truncate"


@pytest.mark.case("C19")
def test_a_new_file_gets_a_write_ahead_log_from_a_sound_sqlite(cache, path, linked):
    linked(3, 51, 3)
    cache.set_many(some(1))

    assert cache.stats().journal_mode == "wal"
    assert "no known fault" in cache.journal_reason
    assert {mode_of(file) for file in path.parent.iterdir()} == {0o600}
    assert found(cache, 1) == some(1)


@pytest.mark.case("C14")
def test_a_file_with_a_write_ahead_log_is_never_switched_back(path, linked):
    linked(3, 51, 3)
    with SqliteCache(path) as first:
        first.set_many(some(1))
        linked(3, 40, 1)
        with SqliteCache(path) as cache:
            cache.set_many(some(2))
            assert found(cache, 1, 2) == some(1, 2)
            assert cache.stats().journal_mode == "wal"
            assert "made with a write-ahead log; SQLite 3.40.1" in cache.journal_reason
        assert found(first, 1, 2) == some(1, 2)


def test_a_file_without_a_write_ahead_log_keeps_its_journal(path, linked):
    linked(3, 40, 1)
    with SqliteCache(path) as cache:
        cache.set_many(some(1))
    linked(3, 51, 3)
    with SqliteCache(path) as cache:
        assert cache.stats().journal_mode == "truncate"
        assert "made without" in cache.journal_reason


@pytest.mark.case("C15")
@pytest.mark.parametrize(("local", "mapped"), [(True, True), (False, False), (None, False)])
def test_only_files_on_a_local_disk_are_mapped_into_memory(cache, monkeypatch, linked, local, mapped):
    linked(3, 51, 3)
    monkeypatch.setattr(place, "is_local", lambda _: local)

    with cache._store.reading() as connection:
        assert (connection.execute("PRAGMA mmap_size").fetchone()[0] > 0) == mapped
    assert cache.stats().journal_mode == ("truncate" if local is False else "wal")
    assert ("network file system" in cache.journal_reason) == (local is False)


@pytest.mark.case("C06")
def test_readers_cannot_write(cache):
    with cache._store.reading() as connection, pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("DELETE FROM rows")


MOUNTS = """\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 27 0:9 / /home rw - nfs4 server:/home rw
31 30 0:9 / /home/me/a\\040b rw shared:5 - fuse.sshfs other: rw
32 27 0:10 / /data rw - ext4 /dev/vdb rw
33 27 0:11 / /data rw - cifs //server/data rw
nonsense
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/x", "ext4"),
        ("/home/me/x", "nfs4"),
        ("/homely/x", "ext4"),
        ("/home/me/a b/c/x", "fuse.sshfs"),
        ("/data/x", "cifs"),
    ],
)
def test_the_file_system_of_a_path_is_that_of_the_nearest_mount(path, kind):
    assert place.file_system(place.find(path), MOUNTS) == kind


def test_a_path_under_no_mount_is_on_no_known_file_system():
    assert place.file_system(place.find("/x"), "") is None


@pytest.mark.case("C15")
@pytest.mark.parametrize(("kind", "local"), [("ext4", True), ("nfs", False), ("fuse.x", False), (None, None)])
def test_a_network_is_not_local_and_the_unknown_is_unknown(tmp_path, monkeypatch, kind, local):
    monkeypatch.setattr(place, "file_system", lambda *_: kind)

    assert place.is_local(tmp_path) is local


def test_a_system_that_does_not_tell_its_mounts_is_unknown(tmp_path, monkeypatch):
    def absent(*_):
        raise FileNotFoundError

    monkeypatch.setattr(place.Path, "read_text", absent)

    assert place.is_local(tmp_path) is None


# All of it in any order


class AnyOrder(RuleBasedStateMachine):
    """The cache agrees with a dict, or misses."""

    numbers = Bundle("numbers")

    @initialize()
    def begin(self):
        # In memory where there is such a folder: every step syncs.
        self.folder = tempfile.TemporaryDirectory(dir=next(filter(os.path.isdir, ["/dev/shm"]), None))  # noqa: S108 -- fine for a test
        self.path = place.find(self.folder.name) / "cache.db"
        self.cache = SqliteCache(self.path)
        self.rows = {}
        # Once a bit is flipped anywhere, the damage may be found at any later time, and said.
        self.doubted = False
        self.quiet = warnings.catch_warnings()
        self.quiet.__enter__()
        warnings.simplefilter("ignore", VoxvecWarning)

    @rule(target=numbers, number=st.integers(0, 30), width=st.sampled_from([1, 50, 9_000]))
    def put(self, number, width):
        self.cache.set_many(some(number, width=width))
        if len(row_of(number, width)) >= len(self.rows.get(key_of(number), b"")):
            self.rows.update(some(number, width=width))
        return number

    @rule(number=numbers)
    def discard(self, number):
        self.cache.discard([key_of(number)])
        self.rows.pop(key_of(number), None)

    @rule()
    def reopen(self):
        self.cache.close()
        self.cache = SqliteCache(self.path)

    @rule()
    def evict(self):
        self.cache.prune(max_bytes=200_000)
        self.rows = dict(self.cache.get_many(list(self.rows)))

    @rule(number=numbers)
    def spoil_a_row(self, number):
        row = self.rows.pop(key_of(number), None)
        if row is not None:
            self.cache.close()
            content = self.path.read_bytes()
            # A long row is cut into overflow pages; its head stands in one piece.
            flip(self.path, content.index(row[:60]) + 50)

    @rule()
    def spoil_the_file(self):
        self.cache.close()
        if self.path.exists() and self.path.stat().st_size:
            spoil_tables(self.path)
            self.rows.clear()

    @rule(data=st.data())
    def flip_a_bit_anywhere(self, data):
        self.cache.close()
        if self.path.exists() and self.path.stat().st_size:
            # Behind the head, without which the file would not look like ours, and not be touched any more.
            at = data.draw(st.integers(100, self.path.stat().st_size - 1))
            flip(self.path, at, 1 << data.draw(st.integers(0, 7)))
            self.doubted = True

    @rule()
    def kill(self):
        # What a process leaves that is killed: its files as they are, nothing closed.
        if self.path.exists():
            copy = self.path.with_name("copy.db")
            for end in ("", "-journal", "-wal", "-shm"):
                file = self.path.with_name(self.path.name + end)
                if file.exists():
                    copy.with_name(copy.name + end).write_bytes(file.read_bytes())
            self.cache.close()
            for end in ("", "-journal", "-wal", "-shm"):
                self.path.with_name(self.path.name + end).unlink(missing_ok=True)
                if (left := copy.with_name(copy.name + end)).exists():
                    left.rename(self.path.with_name(self.path.name + end))
            self.cache = SqliteCache(self.path)

    @rule()
    def delete_the_file(self):
        self.path.unlink(missing_ok=True)
        self.rows.clear()

    @invariant()
    def it_agrees_or_misses(self):
        if hasattr(self, "cache"):
            answer = self.cache.get_many([key_of(number) for number in range(31)])
            sound = {key: row for key, row in answer.items() if rows.unpack(key, row)}
            assert sound.items() <= self.rows.items() if self.doubted else sound == self.rows
            gone = [key for key in self.rows if key not in sound]
            self.cache.discard([key for key in answer if key not in sound] + gone)
            self.rows = sound

    def teardown(self):
        if hasattr(self, "cache"):
            self.cache.close()
            self.folder.cleanup()
            self.quiet.__exit__(None, None, None)


class AnyOrderWithLog(AnyOrder):
    """The same with a write-ahead log."""

    def __init__(self):
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(sqlite3, "sqlite_version_info", (3, 51, 3))

    def teardown(self):
        super().teardown()
        self.patch.undo()


class InMemory(RuleBasedStateMachine):
    """The cache in memory agrees with a dict of the rows used last."""

    def __init__(self):
        super().__init__()
        self.cache, self.rows = MemoryCache(max_bytes=20_000), {}

    def cost(self):
        return sum(len(key) + len(row) for key, row in self.rows.items())

    def shrink(self, room):
        while self.cost() > room:
            self.rows.pop(next(iter(self.rows)))

    @rule(number=st.integers(0, 9), width=st.sampled_from([1, 50, 1_000, 6_000]))
    def put(self, number, width):
        self.cache.set_many(some(number, width=width))
        known = self.rows.get(key_of(number), b"")
        if len(row_of(number, width)) < 20_000 and len(row_of(number, width)) >= len(known):
            self.rows.pop(key_of(number), None)
            self.rows.update(some(number, width=width))
            self.shrink(20_000)

    @rule(numbers=st.lists(st.integers(0, 9), max_size=4, unique=True))
    def get(self, numbers):
        wanted = {key: self.rows[key] for key in map(key_of, numbers) if key in self.rows}
        assert found(self.cache, *numbers) == wanted
        for key in wanted:
            self.rows[key] = self.rows.pop(key)

    @rule(number=st.integers(0, 9))
    def discard(self, number):
        self.cache.discard([key_of(number)])
        self.rows.pop(key_of(number), None)

    @rule(room=st.sampled_from([0, 5_000]))
    def evict(self, room):
        self.cache.prune(max_bytes=room)
        self.shrink(room)

    @invariant()
    def it_agrees(self):
        stats = self.cache.stats()
        assert (stats.rows, stats.bytes) == (len(self.rows), self.cost())


TestAnyOrder = pytest.mark.case("C34")(AnyOrder.TestCase)
TestAnyOrderWithLog = pytest.mark.case("C34")(AnyOrderWithLog.TestCase)
TestInMemory = pytest.mark.case("C34")(InMemory.TestCase)
TestAnyOrder.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
TestAnyOrderWithLog.settings = settings(max_examples=10, stateful_step_count=20, deadline=None)
TestInMemory.settings = settings(max_examples=25, deadline=None)

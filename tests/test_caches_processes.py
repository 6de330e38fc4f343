"""The cache in a file, shared by processes that start, fork and die at any moment."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap

import pytest

from voxvec.caches import SqliteCache

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes as POSIX knows them")

PRELUDE = """
import os, sys, threading, traceback, warnings
from voxvec.caches import MemoryCache, SqliteCache, store
from voxvec.errors import VoxvecWarning

path = sys.argv[1]
# Many processes on a slow disk wait longer than a caller would like to.
store.READ_WAIT = store.WRITE_WAIT = 30.0


def key(number):
    return number.to_bytes(32, "big")


def some(*numbers):
    return {key(number): number.to_bytes(4, "big") * 1000 for number in numbers}


def in_child(work):
    child = os.fork()
    if not child:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def well(*children):
    return all(os.waitpid(child, 0)[1] == 0 for child in children)
"""


def key(number):
    return number.to_bytes(32, "big")


def command(script, path):
    # From 3.12 on, Python warns of any fork beside a thread, which is what some of these are about.
    strict = ["-W", "error", "-W", "ignore:This process:DeprecationWarning"]
    return [sys.executable, *strict, "-c", PRELUDE + textwrap.dedent(script), str(path)]


def run(script, path):
    done = subprocess.run(command(script, path), capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 -- our own script
    assert done.stderr == ""
    assert done.returncode == 0


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "cache.db"


def intact(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.case("C12")
def test_fifty_processes_that_make_the_same_cache_at_once_share_one_file(path):
    run(
        """
        ready, go = os.pipe()

        def work(number):
            os.close(go)
            os.read(ready, 1)
            with SqliteCache(path) as cache:
                cache.set_many(some(number))
                assert cache.get_many([key(number)]) == some(number)

        children = [in_child(lambda: work(number)) for number in range(50)]
        os.close(go)
        assert well(*children)
        """,
        path,
    )

    with SqliteCache(path) as cache:
        assert len(cache.get_many([key(number) for number in range(50)])) == 50
    assert intact(path)


def test_processes_that_write_the_same_rows_lose_none_and_are_never_locked_out(path):
    run(
        """
        def work(first):
            with SqliteCache(path) as cache:
                for start in range(first, first + 400, 20):
                    cache.set_many(some(*range(start, start + 40)))
                    assert len(cache.get_many(list(some(*range(start, start + 40))))) == 40
                assert cache.stats().dropped == 0

        assert well(*[in_child(lambda: work(number * 100)) for number in range(4)])
        """,
        path,
    )

    with SqliteCache(path) as cache:
        assert cache.stats().rows == 300 + 400 + 20
    assert intact(path)


@pytest.mark.parametrize("acknowledged", [1, 7, 40])
def test_no_acknowledged_row_is_lost_when_the_process_is_killed(path, acknowledged):
    writer = subprocess.Popen(  # noqa: S603 -- our own script
        command(
            """
            cache = SqliteCache(path)
            for number in range(1_000_000):
                cache.set_many(some(*range(number * 10, number * 10 + 10)))
                print(number, flush=True)
            """,
            path,
        ),
        stdout=subprocess.PIPE,
        text=True,
    )
    with writer:
        for _ in range(acknowledged):
            last = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        last = int((writer.stdout.read().split("\n")[-2:-1] or [last])[0])

    with SqliteCache(path) as cache:
        assert len(cache.get_many([key(number) for number in range(last * 10 + 10)])) == last * 10 + 10
        cache.set_many({key(10**9): b"works on"})
        assert cache.stats().dropped == 0
    assert intact(path)


@pytest.mark.case("C31")
def test_a_child_opens_its_own_handles_and_the_parent_goes_on(path):
    run(
        """
        cache = SqliteCache(path)
        cache.set_many(some(1))
        cache.get_many([key(1)])

        def work():
            assert not cache._store._open
            assert cache.get_many([key(1)]) == some(1)
            cache.set_many(some(2))

        child = in_child(work)
        cache.set_many(some(3))
        assert well(child)
        assert cache.get_many([key(1), key(2), key(3)]) == some(1, 2, 3)
        """,
        path,
    )


@pytest.mark.case("C31")
def test_a_fork_waits_for_the_reads_and_writes_of_other_threads(path):
    run(
        """
        cache, memory = SqliteCache(path), MemoryCache()
        cache.set_many(some(0))
        stop = threading.Event()

        def work(number):
            while not stop.is_set():
                for each in cache, memory:
                    each.set_many(some(number))
                    assert each.get_many([key(number)]) == some(number)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 4)]
        for thread in threads:
            thread.start()

        def child():
            assert cache.get_many([key(0)]) == some(0)
            cache.set_many(some(9))
            memory.set_many(some(9))
            assert memory.get_many([key(9)]) == some(9)

        for _ in range(20):
            assert well(in_child(child))
        stop.set()
        for thread in threads:
            thread.join()
        assert cache.stats().dropped == 0
        """,
        path,
    )


@pytest.mark.case("C31")
@pytest.mark.parametrize("use", ["reading", "writing"])
def test_a_child_forked_in_the_middle_of_a_call_goes_without_cache(path, use):
    run(
        f"""
        store.FORK_WAIT = 0.0
        cache = SqliteCache(path)
        cache.set_many(some(1))
        warnings.simplefilter("ignore", VoxvecWarning)

        def work():
            assert cache.get_many([key(1)]) == {{}}
            cache.set_many(some(2))

        with cache._store.{use}():
            child = in_child(work)
            assert well(child)
        assert cache.get_many([key(1), key(2)]) == some(1)
        """,
        path,
    )


def test_a_cache_that_nobody_closed_ends_in_silence(path):
    run(
        """
        import gc

        lost, kept = SqliteCache(path), SqliteCache(path)
        for cache in lost, kept:
            cache.set_many(some(1))
            cache.get_many([key(1)])
        del lost, cache
        gc.collect()
        """,
        path,
    )

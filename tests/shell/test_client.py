import copy
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import warnings

import anyio
import openai
import pytest

from voxvec._client import AsyncClient, Client, Setup
from voxvec._threads import in_thread
from voxvec.caches.memory import MemoryCache
from voxvec.caches.sqlite import SqliteCache
from voxvec.errors import CacheError, ConfigError, VoxvecWarning
from voxvec.policy import Pace, Retry

KEY = "sk-canary-of-the-client-012345"


def setup(**settings):
    defaults = {
        "api_key": None,
        "base_url": None,
        "timeout": 60.0,
        "cache": None,
        "retry": Retry(),
        "pace": Pace(),
        "deadline": None,
        "workers": 4,
    }
    return Setup(**{**defaults, **settings})


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"timeout": 0}, "timeout must be above 0 s, not 0"),
        ({"timeout": float("nan")}, "timeout must be above 0 s"),
        ({"deadline": -1}, "deadline must be above 0 s, not -1"),
        ({"workers": 0}, "workers must be at least 1, not 0"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(settings, says):
    with pytest.raises(ConfigError, match=says):
        setup(**settings)


@pytest.mark.parametrize("cls", [Client, AsyncClient])
def test_nothing_is_needed_until_the_first_request(cls):
    made = cls(None, setup())

    assert made.origin == "https://api.openai.com/v1"


@pytest.mark.parametrize("cls", [Client, AsyncClient])
def test_a_cache_that_was_not_asked_for_knows_nothing(cls):
    cache = cls(None, setup()).cache
    cache.set_many({b"a": b"row"})
    cache.discard([b"a"])

    assert cache.get_many([b"a"]) == {}


class Counted(MemoryCache):
    """A user's cache that knows how many rows it has, and so is false while it has none."""

    def __len__(self):
        return self.stats().rows


class Sick:
    """A user's cache of which nothing works."""

    def __init__(self, failure):
        self.failure = failure

    def get_many(self, keys):
        raise self.failure

    def set_many(self, rows):
        raise self.failure

    def discard(self, keys):
        raise self.failure


class Forgetful(Sick):
    """A user's cache that forgot to return something."""

    def get_many(self, keys):
        return None


@pytest.mark.parametrize("cls", [Client, AsyncClient])
def test_an_empty_cache_is_a_cache(cls):
    given = Counted()
    assert not given

    cache = cls(None, setup(cache=given)).cache
    cache.set_many({b"a" * 32: b"row"})

    assert len(given) == 1
    assert cache.get_many([b"a" * 32]) == {b"a" * 32: b"row"}
    cache.discard([b"a" * 32])
    assert not given


@pytest.mark.parametrize("cls", [Client, AsyncClient])
def test_a_sick_cache_costs_its_rows_and_one_warning_that_shows_no_values(cls):
    cache = cls(None, setup(cache=Sick(OSError("redis://:hunter2@host is gone")))).cache

    with pytest.warns(VoxvecWarning, match="the cache Sick gave no rows: it raised OSError") as said:
        assert cache.get_many([b"a"]) == {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.set_many({b"a": b"row"})
        cache.discard([b"a"])
        assert cache.get_many([b"a"]) == {}

    assert "hunter2" not in str(said[0].message)


@pytest.mark.parametrize(("method", "asked"), [("set_many", {b"a": b"row"}), ("discard", [b"a"])])
def test_a_cache_that_cannot_be_written_says_so_once_too(method, asked):
    cache = Client(None, setup(cache=Sick(ValueError()))).cache

    with pytest.warns(VoxvecWarning, match="it raised ValueError"):
        getattr(cache, method)(asked)


def test_a_cache_that_gives_no_mapping_knows_nothing():
    cache = Client(None, setup(cache=Forgetful(None))).cache

    with pytest.warns(VoxvecWarning, match="it raised TypeError"):
        assert cache.get_many([b"a"]) == {}


def test_a_cache_that_is_misconfigured_says_so_itself():
    failure = CacheError("somebody else's file")
    cache = Client(None, setup(cache=Sick(failure))).cache

    with pytest.raises(CacheError) as caught:
        cache.set_many({})
    assert caught.value is failure


@pytest.mark.parametrize("cls", [Client, AsyncClient])
def test_a_cache_that_was_opened_here_is_closed_here_and_one_that_was_passed_in_is_not(cls, tmp_path, monkeypatch):
    closed = []
    monkeypatch.setattr(SqliteCache, "close", lambda self: closed.append(self.path.name))

    for cache in (str(tmp_path / "text.db"), tmp_path / "path.db", SqliteCache(tmp_path / "users.db"), None):
        client = cls(None, setup(cache=cache))
        if cls is Client:
            client.close()
        else:
            anyio.run(client.close)

    assert closed == ["text.db", "path.db"]


def test_the_key_is_not_shown_by_the_settings_and_does_not_leave_the_process():
    given = setup(api_key=KEY)

    assert KEY not in repr(given)
    for leave in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="holds the key and cannot be pickled"):
            leave(given)


@pytest.mark.parametrize(
    ("cls", "right", "wrong"),
    [(Client, openai.OpenAI, openai.AsyncOpenAI), (AsyncClient, openai.AsyncOpenAI, openai.OpenAI)],
)
def test_the_users_client_must_be_of_the_right_kind_and_come_alone(cls, right, wrong):
    given = right(api_key=KEY, base_url="http://local:8000/v1/")

    assert cls(given, setup()).origin == "http://local:8000/v1"
    with pytest.raises(ConfigError, match=f"must be an openai.{right.__name__}, not {wrong.__name__}"):
        cls(wrong(api_key=KEY), setup())
    for more in ({"api_key": KEY}, {"base_url": "http://local"}):
        with pytest.raises(ConfigError, match="not both"):
            cls(given, setup(**more))


def opened(client):
    return client.door(), client.lane()


def test_no_key_is_said_at_the_first_request():
    with pytest.raises(ConfigError, match="there is no key"):
        Client(None, setup()).door()

    async def main():
        AsyncClient(None, setup()).door()

    with pytest.raises(ConfigError, match="there is no key"):
        anyio.run(main)


def test_a_client_has_one_door_and_one_lane_however_many_threads_open_it_first():
    client, start = Client(None, setup(api_key=KEY)), threading.Barrier(16)

    def open_():
        start.wait(20)
        return opened(client)

    ways = [future.result(20) for future in [in_thread(open_) for _ in range(16)]]

    assert len({(id(door), id(lane)) for door, lane in ways}) == 1
    client.close()


def test_a_client_that_another_process_has_used_is_not_shared_with_it():
    with openai.OpenAI(api_key=KEY) as given:
        client = Client(given, setup())
        client.door()
        client._pid = client._sender = -1  # as a child finds it

        assert client.lane() is not None  # what is cached can still be looked up
        with pytest.raises(ConfigError, match=r"before the fork.*Nothing was sent"):
            client.door()


def test_a_lane_gets_its_workers():
    client = Client(None, setup(api_key=KEY, workers=3))

    assert client.lane().workers == 3
    client.close()


def test_closing_closes_our_own_connections_and_the_client_for_good():
    client = Client(None, setup(api_key=KEY))
    door = client.door()

    client.close()
    client.close()

    assert door._client.is_closed()
    with pytest.raises(ConfigError, match="was closed"):
        client.door()


def test_closing_what_was_never_opened_is_fine():
    Client(None, setup()).close()

    async def main():
        await AsyncClient(None, setup()).close()

    anyio.run(main)


def test_a_client_that_was_passed_in_stays_open_and_keeps_its_retries():
    with openai.OpenAI(api_key=KEY, max_retries=7) as given:
        client = Client(given, setup())
        client.door()
        client.close()

        assert not given.is_closed()
        assert given.max_retries == 7


def test_each_event_loop_has_its_own_door_and_lane():
    client, seen = AsyncClient(None, setup(api_key=KEY)), []

    async def main():
        seen.append(opened(client))
        assert opened(client) == seen[-1]
        await seen[-1][0].close()

    anyio.run(main)
    anyio.run(main)

    assert seen[0][0] is not seen[1][0]
    assert seen[0][1] is not seen[1][1]


def test_closing_for_tasks_closes_our_own_connections_and_the_client_for_good():
    async def main():
        client = AsyncClient(None, setup(api_key=KEY))
        door = client.door()
        await client.close()
        assert door._client.is_closed()
        with pytest.raises(ConfigError, match="was closed"):
            client.lane()

        given = openai.AsyncOpenAI(api_key=KEY)
        client = AsyncClient(given, setup())
        client.door()
        await client.close()
        assert not given.is_closed()
        await given.close()

    anyio.run(main)


FORKING = """
    import os, sys, threading, warnings

    import openai

    from voxvec._client import Client, Setup
    from voxvec.errors import ConfigError
    from voxvec.policy import Pace, Retry

    warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of threads at a fork, which is the point
    manners = dict(timeout=1, cache=None, retry=Retry(), pace=Pace(), deadline=None, workers=2)
    ours = Client(None, Setup(api_key="sk-own-1234567890", base_url=None, **manners))
    given = openai.OpenAI(api_key="sk-given-1234567890")
    used, unused, looked_up = (Client(given, Setup(api_key=None, base_url=None, **manners)) for _ in range(3))
    def opened(client):
        return client.door(), client.lane()

    door, lane = opened(ours)
    used.door()
    looked_up.lane()

    # Another thread holds every lock of the client at the moment of the fork.
    held, go_on = threading.Event(), threading.Event()
    def hold():
        with ours._locks[os.getpid()], lane._changed:
            held.set()
            go_on.wait(10)
    threading.Thread(target=hold, daemon=True).start()
    held.wait(10)

    pid = os.fork()
    if pid == 0:
        child_door, child_lane = opened(ours)
        assert child_door is not door and child_lane is not lane
        assert opened(ours) == (child_door, child_lane)
        assert child_door._client._client is not door._client._client
        unused.door()
        looked_up.door()
        try:
            used.door()
        except ConfigError as error:
            assert "before the fork" in str(error)
        else:
            raise AssertionError("two processes share connections")
        used.close()
        ours.close()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    go_on.set()
    assert opened(ours) == (door, lane)
    assert not door._client.is_closed()
    print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_after_a_fork_the_child_has_its_own_connections_and_the_parent_keeps_its():
    ended = subprocess.run(  # noqa: S603 -- our own script
        [sys.executable, "-c", textwrap.dedent(FORKING)], capture_output=True, text=True, timeout=60, check=False
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"retry": None}, "retry must be a Retry, not None"),
        ({"retry": 3}, "retry must be a Retry, not 3"),
        ({"pace": 5}, "pace must be a Pace, not 5"),
        ({"workers": "a"}, "workers must be a whole number, not 'a'"),
        ({"workers": True}, "workers must be a whole number, not True"),
        ({"timeout": "x"}, "timeout must be a number of seconds or None, not 'x'"),
        ({"base_url": 5}, "base_url must be a text or None, not 5"),
        ({"api_key": 12345678}, "api_key must be a text or None, not int"),
    ],
)
def test_a_setting_of_the_wrong_kind_is_named(wrong, words):
    with pytest.raises(ConfigError, match=f"^{words}$"):
        setup(**wrong)

"""Of several processes that share a cache, only one buys each answer."""

import os
import platform
import subprocess
import sys
import time

import httpx
import pytest

import voxvec as vv
from voxvec import _client, rows
from voxvec.caches import Leasing, MemoryCache, SqliteCache, leases, store
from voxvec.errors import ServiceTimeoutError
from voxvec.testing import FakeOpenAI, Fault


def key_of(number):
    return number.to_bytes(32, "big")


def row_of(number):
    return rows.pack(key_of(number), bytes(8), kind=rows.Kind.VECTOR, width=2, tokens=1, model="m")


def keys(*numbers):
    return [key_of(number) for number in numbers]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache.db"


@pytest.fixture
def pair(path):
    """Two caches on one file, as two processes would have them."""
    with SqliteCache(path) as one, SqliteCache(path) as two:
        yield one, two


def test_only_a_cache_that_processes_share_leases(path):
    assert isinstance(SqliteCache(path), Leasing)
    assert not isinstance(MemoryCache(), Leasing)


def test_what_one_holds_the_other_does_not_get(pair):
    one, two = pair

    assert one.lease(keys(1, 2), 60) == dict.fromkeys(keys(1, 2))
    assert two.lease(keys(2, 3), 60) == dict.fromkeys(keys(3))
    assert one.lease(keys(1, 2, 3), 60) == dict.fromkeys(keys(1, 2))


@pytest.mark.parametrize("end", ["stored", "released", "closed"])
def test_a_lease_ends_when_the_row_is_there_or_it_is_given_up(pair, end):
    one, two = pair
    one.lease(keys(1, 2), 60)

    if end == "stored":
        one.set_many({key_of(1): row_of(1)})
        assert two.lease(keys(1, 2), 60) == {key_of(1): row_of(1)}
    elif end == "released":
        one.release(keys(1, 7))
        assert two.lease(keys(1, 2), 60) == {key_of(1): None}
    else:
        one.close()
        assert two.lease(keys(1, 2), 60) == dict.fromkeys(keys(1, 2))


@pytest.mark.case("C25")
@pytest.mark.parametrize("jump", [61.0, -3e8, 3e8])
def test_a_lease_ends_with_its_time_and_with_a_clock_that_jumps(pair, monkeypatch, jump):
    one, two = pair
    one.lease(keys(1), 60)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + jump)

    assert two.lease(keys(1), 60) == dict.fromkeys(keys(1))


def test_the_dead_hold_nothing(path):
    script = "import sys; from voxvec.caches import SqliteCache; SqliteCache(sys.argv[1]).lease([bytes(32)], 600)"
    subprocess.run([sys.executable, "-c", script + "; import os; os._exit(0)", path], check=True)  # noqa: S603 -- our own script

    with SqliteCache(path) as cache:
        assert cache.lease([bytes(32)], 60) == {bytes(32): None}


def test_whoever_cannot_be_looked_for_is_taken_to_live(monkeypatch):
    me = leases._holder("salt")
    assert leases._lives(me)
    assert leases._lives(b"another machine/1/salt")
    assert leases._lives(me.replace(str(os.getpid()).encode(), b"what"))

    def forbidden(*_):
        raise PermissionError

    monkeypatch.setattr(os, "kill", forbidden)
    assert leases._lives(me)
    monkeypatch.setattr(leases.Path, "readlink", forbidden)
    assert leases._node() == platform.node()


def test_leases_that_cannot_be_written_down_are_granted_to_all(pair, path, monkeypatch):
    one, two = pair
    path.with_name("cache.db-leases").mkdir()

    for cache in one, two:
        assert cache.lease(keys(1), 60) == dict.fromkeys(keys(1))
        cache.release(keys(1))


def test_a_locked_file_of_leases_is_waited_for_once_and_then_left_alone_for_a_while(pair, monkeypatch):
    one, two = pair
    now, begun = [0.0], []
    monkeypatch.setattr(leases, "SHORT_WAIT", 0.01)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    real = store.Store._begin
    monkeypatch.setattr(store.Store, "_begin", lambda self, wait: begun.append(wait) or real(self, wait))
    one.lease(keys(1, 2), 60)
    with one._leases._store.writing():
        begun.clear()
        for _ in range(3):
            assert two.lease(keys(1), 60) == dict.fromkeys(keys(1))
    assert len(begun) == 1

    now[0] += leases.REST
    assert two.lease(keys(1), 60) == {}
    with two._leases._store.writing():
        begun.clear()
        one.release(keys(1))
        one.release(keys(2))
    assert len(begun) == 1


@pytest.mark.parametrize("use", ["lease", "release"])
def test_a_damaged_file_of_leases_is_begun_anew(pair, path, use):
    one, two = pair
    one.lease(keys(1), 60)
    file = path.with_name("cache.db-leases")
    file.write_bytes(b"\xff" * file.stat().st_size)

    if use == "lease":
        assert one.lease(keys(1, 2), 60) == dict.fromkeys(keys(1, 2))
    else:
        one.release(keys(1))

    assert one.lease(keys(3), 60) == dict.fromkeys(keys(3))
    assert two.lease(keys(3), 60) == {}
    assert [name.name for name in path.parent.iterdir() if "damaged" in name.name] == []


def test_the_file_of_leases_is_the_owners_alone_and_holds_no_row(pair, path):
    one, _ = pair
    one.lease(keys(1), 60)
    one.set_many({key_of(1): row_of(1)})
    file = path.with_name("cache.db-leases")

    assert file.stat().st_mode & 0o777 == 0o600
    assert row_of(1)[48:] not in file.read_bytes()


class Elsewhere(SqliteCache):
    """A cache whose first leases somebody else has."""

    refusals, seen = 3, ()

    def lease(self, keys, seconds, /):
        self.seen = (*self.seen, len(keys))
        if self.refusals:
            self.refusals -= 1
            return {}
        return super().lease(keys, seconds)


def test_what_another_process_buys_is_looked_for_until_it_is_there(twin, server, path, clock, vectors_of):
    class Bought(SqliteCache):
        def lease(self, keys, seconds, /):
            other.embed(["b", "a", "c"])
            return {}

    with SqliteCache(path) as theirs, Bought(path) as ours:
        other = twin.embedder(cache=theirs)
        vectors = twin.embedder(cache=ours).embed(["a", "b"])

    assert vectors.array.tolist() == vectors_of(["a", "b"])
    assert (len(server.asked), vectors.usage.requests, vectors.cached) == (1, 0, 2)


def test_what_another_process_gives_up_is_bought_after_all(twin, server, path, clock, vectors_of):
    with Elsewhere(path) as cache:
        vectors = twin.embedder(cache=cache).embed(["a", "b"])

    assert vectors.array.tolist() == vectors_of(["a", "b"])
    assert (len(server.asked), cache.seen) == (1, (2, 2, 2, 2))
    assert clock.seconds >= 1000.3 - 1e-6


def test_the_part_of_a_request_that_nobody_else_is_buying_is_sent_alone(twin, server, path, vectors_of):
    with SqliteCache(path) as theirs, SqliteCache(path) as ours:
        names = []
        real = ours.lease

        def lease(keys, seconds):
            if not names:
                names.extend(keys)
                theirs.lease(keys[1:2], 60)
                theirs.set_many({})
            elif len(server.asked) == 1:
                theirs.release(names)
            return real(keys, seconds)

        ours.lease = lease
        vectors = twin.embedder(cache=ours).embed(["a", "b", "c"])

    assert vectors.array.tolist() == vectors_of(["a", "b", "c"])
    assert [body["input"] for body in server.asked] == [["a", "c"], ["b"]]


def test_a_row_too_narrow_is_bought_again_though_another_process_has_just_stored_it(twin, server, path, vectors_of):
    with SqliteCache(path) as cache:
        real = cache.lease

        def lease(keys, seconds):
            cache.lease = real
            twin.embedder(dimensions=4, cache=cache).embed(["a"])
            return real(keys, seconds)

        cache.lease = lease
        vectors = twin.embedder(dimensions=8, cache=cache).embed(["a"])

    assert vectors.array.tolist() == vectors_of(["a"], 8)
    assert len(server.asked) == 2


def test_a_request_that_fails_leaves_its_texts_to_others(twin, server, path):
    with SqliteCache(path) as ours, SqliteCache(path) as theirs:
        server.script.append(httpx.Response(400, json={"error": {"message": "no"}}))
        with pytest.raises(vv.RefusedError):
            twin.embedder(cache=ours).embed(["a"])

        assert twin.embedder(cache=theirs).embed(["a"]).usage.requests == 1


def test_a_call_with_a_deadline_does_not_wait_beyond_it(twin, server, path):
    with Elsewhere(path) as cache:
        cache.refusals = 10**9
        with pytest.raises(ServiceTimeoutError, match="deadline"):
            twin.embedder(cache=cache, deadline=1.0).embed(["a"])

    assert server.asked == []


@pytest.fixture
def recording(tmp_path):
    import wave  # noqa: PLC0415 -- for the one who records

    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(32_000))
    return path


@pytest.mark.parametrize("outcome", ["bought", "given up"])
def test_a_recording_that_another_process_has_in_hand_is_left_to_it(twin, path, recording, clock, outcome):
    fake = FakeOpenAI()
    with SqliteCache(path) as theirs, Elsewhere(path) as ours:
        other = twin.transcriber(client=twin.client(fake), cache=theirs)
        if outcome == "bought":
            real = ours.lease

            def lease(keys, seconds):
                other.transcribe(recording)
                return real(keys, seconds)

            ours.lease = lease
            ours.refusals = 0
        transcript = twin.transcriber(client=twin.client(fake), cache=ours).transcribe(recording)
        assert transcript.text == other.transcribe(recording).text

    assert fake.asked == 1
    assert clock.seconds > 1000.7 or outcome == "bought"


def test_a_recording_that_fails_is_left_to_others(twin, path, recording):
    fake = FakeOpenAI()
    fake.fail_next(400)
    with SqliteCache(path) as ours, SqliteCache(path) as theirs:
        with pytest.raises(vv.RefusedError):
            twin.transcriber(client=twin.client(fake), cache=ours).transcribe(recording)
        twin.transcriber(client=twin.client(fake), cache=theirs).transcribe(recording)

    assert fake.asked == 2


def test_a_strangers_cache_that_cannot_lease_costs_nothing_but_a_second_purchase(server, path):
    class Broken(SqliteCache):
        def lease(self, keys, seconds, /):
            raise OSError

        def release(self, keys, /):
            raise OSError

    with Broken(path) as cache:
        embedder = vv.Embedder("text-embedding-3-small", api_key="sk-x", cache=cache)
        with pytest.warns(vv.errors.VoxvecWarning, match="leased nothing"):
            assert embedder.embed(["a"]).usage.requests == 1
        embedder._client.leasing.release(keys(1))
    assert _client._Mild(MemoryCache()).lease(keys(1), 60) == {key_of(1): None}
    _client._Mild(MemoryCache()).release(keys(1))


JOB = """
import sys
import voxvec as vv

url, path, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
texts = [f"text {number}" for number in range(count)]
model = vv.EmbeddingModel(name="text-embedding-3-small", dims=8, native_dims=8, max_items=5)
with vv.Embedder(model, base_url=url, api_key="sk-x", cache=path, workers=4) as embedder:
    vectors = embedder.embed(texts)
    assert vectors.shape == (count, 8)
    print(vectors.usage.requests)
"""


def two_processes(path, texts):
    """Two processes that embed the same texts at the same time; the server that they asked."""
    fake = FakeOpenAI(models={"text-embedding-3-small": 8})
    fake.misbehave(Fault(delay=0.02), times=None)
    with fake.serve() as url:
        runs = [
            subprocess.Popen(  # noqa: S603 -- our own script
                [sys.executable, "-W", "error", "-c", JOB, url, path, str(texts)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        said = [run.communicate(timeout=120) for run in runs]
    assert [error for _, error in said] == ["", ""]
    assert sum(int(out) for out, _ in said) == fake.asked
    return fake


@pytest.mark.case("J07")
def test_two_processes_with_one_job_and_one_cache_share_the_work(path):
    assert 200 <= two_processes(path, 200).billed <= 1.05 * 200

"""What every built-in cache does, and what only the one in memory does."""

import pickle
import threading
from pathlib import Path

import pytest

import voxvec.caches
from voxvec import rows
from voxvec.caches import Cache, CacheStats, MemoryCache, SqliteCache, open_cache
from voxvec.errors import ConfigError


def key_of(number):
    return number.to_bytes(32, "big")


def row_of(number, width=2):
    payload = number.to_bytes(4, "little") * width
    return rows.pack(key_of(number), payload, kind=rows.Kind.VECTOR, width=width, tokens=number, model="m")


def some(*numbers, width=2):
    return {key_of(number): row_of(number, width) for number in numbers}


@pytest.fixture(params=["memory", "sqlite"])
def cache(request, tmp_path):
    if request.param == "memory":
        yield MemoryCache()
    else:
        with SqliteCache(tmp_path / "cache.db") as cache:
            yield cache


def test_what_was_stored_is_found_and_the_rest_is_absent(cache):
    cache.set_many(some(1, 2))

    assert cache.get_many([key_of(2), key_of(3), key_of(1)]) == some(1, 2)


def test_nothing_asked_or_stored_is_nothing(cache):
    cache.set_many({})
    cache.discard([])

    assert cache.get_many([]) == {}
    assert cache.stats().misses == 0


@pytest.mark.case("C26")
def test_any_number_of_keys_is_found_in_one_call(cache):
    stored = some(*range(2_049))
    cache.set_many(stored)

    assert cache.get_many([*stored, *map(key_of, range(5_000, 5_100))]) == stored


def test_a_key_asked_twice_counts_once(cache):
    cache.set_many(some(1))

    assert cache.get_many([key_of(1), key_of(1), key_of(2), key_of(2)]) == some(1)
    assert (cache.stats().hits, cache.stats().misses) == (1, 1)


def test_a_wider_row_takes_the_place_of_a_narrower_one_and_never_the_other_way(cache):
    cache.set_many(some(1, width=2))
    cache.set_many(some(1, width=4))
    cache.set_many(some(1, width=3))

    assert cache.get_many([key_of(1)]) == some(1, width=4)


def test_a_row_takes_the_place_of_one_just_as_wide(cache):
    cache.set_many({key_of(1): row_of(2)})
    cache.set_many(some(1))

    assert cache.get_many([key_of(1)]) == some(1)


@pytest.mark.case("C27")
def test_any_bytes_can_be_stored(cache):
    oddities = {b"'); DROP TABLE rows;--": b"", b"\0": b"\0" * 100_000, key_of(7): b"\x80\x04pickled?"}
    cache.set_many(oddities)

    assert cache.get_many(list(oddities)) == oddities


def test_a_discarded_row_is_gone_and_counted(cache):
    cache.set_many(some(1, 2))
    cache.discard([key_of(1), key_of(9)])

    assert cache.get_many([key_of(1), key_of(2)]) == some(2)
    assert cache.stats().damaged == 1


@pytest.mark.case("C23")
def test_rows_that_were_changed_by_the_caller_are_found_unchanged(cache):
    given = bytearray(row_of(1))
    cache.set_many({key_of(1): given})
    given[:] = bytes(len(given))
    found = cache.get_many([key_of(1)])
    found.clear()

    assert cache.get_many([key_of(1)]) == some(1)


def test_it_counts_what_it_does(cache):
    cache.set_many(some(1, 2, 3))
    cache.get_many([key_of(1), key_of(2), key_of(8)])
    stats = cache.stats()

    assert (stats.rows, stats.hits, stats.misses, stats.stored) == (3, 2, 1, 3)
    assert (stats.dropped, stats.damaged) == (0, 0)
    assert stats.bytes >= 3 * (32 + len(row_of(1)))


def test_cleared_it_is_empty_and_works_on(cache):
    cache.set_many(some(1, 2))

    assert cache.clear() == 2
    assert cache.get_many([key_of(1)]) == {}
    cache.set_many(some(3))
    assert cache.get_many([key_of(3)]) == some(3)


@pytest.mark.case("C30")
def test_thirty_two_threads_find_what_they_stored(cache):
    wrong = []

    def work(number):
        mine = some(*range(number * 10, number * 10 + 10))
        for _ in range(3):
            cache.set_many(mine)
            if cache.get_many(list(mine)) != mine:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []
    assert cache.stats().rows == 320


@pytest.mark.parametrize("make", [MemoryCache, lambda limit: SqliteCache("x.db", max_bytes=limit)])
def test_a_negative_limit_is_refused(make):
    with pytest.raises(ConfigError, match="max_bytes must be 0 or more, not -1"):
        make(-1)


def test_pruning_to_a_negative_size_is_refused(cache):
    with pytest.raises(ConfigError, match="max_bytes must be 0 or more, not -1"):
        cache.prune(max_bytes=-1)


def test_the_built_in_caches_keep_the_contract(cache):
    assert isinstance(cache, Cache)


def test_the_least_recently_used_row_leaves_memory_first():
    size = 32 + len(row_of(1))
    cache = MemoryCache(max_bytes=3 * size)
    cache.set_many(some(1, 2, 3))
    cache.get_many([key_of(1)])
    cache.set_many(some(4))

    assert set(cache.get_many([key_of(n) for n in (1, 2, 3, 4)])) == {key_of(n) for n in (1, 3, 4)}
    assert cache.stats().bytes == 3 * size


def test_a_row_larger_than_all_memory_is_dropped_and_counted():
    cache = MemoryCache(max_bytes=200)
    cache.set_many(some(1))
    cache.set_many(some(2, width=100))

    assert cache.get_many([key_of(1), key_of(2)]) == some(1)
    assert cache.stats().dropped == 1


def test_memory_is_pruned_to_a_size():
    cache = MemoryCache()
    cache.set_many(some(1, 2, 3))

    assert cache.prune(max_bytes=32 + len(row_of(1))) == 2
    assert cache.get_many([key_of(n) for n in (1, 2, 3)]) == some(3)


def test_a_cache_shows_what_it_is(tmp_path):
    assert repr(MemoryCache(max_bytes=5)) == "MemoryCache(max_bytes=5)"
    assert repr(SqliteCache(tmp_path / "a.db")) == f"SqliteCache({str(tmp_path / 'a.db')!r})"


def test_stats_are_a_value():
    stats = MemoryCache().stats()

    assert stats == CacheStats(rows=0, bytes=0, hits=0, misses=0, stored=0, dropped=0, damaged=0)
    assert pickle.loads(pickle.dumps(stats)) == stats  # noqa: S301 -- our own bytes


def test_no_cache_stays_no_cache():
    assert open_cache(None) is None


@pytest.mark.parametrize("convert", [str, Path])
def test_a_path_is_an_sqlite_file_that_is_not_touched_yet(tmp_path, convert):
    path = tmp_path / "folder" / "vectors.db"
    cache = open_cache(convert(path))

    assert isinstance(cache, SqliteCache)
    assert cache.path == path
    assert list(tmp_path.iterdir()) == []


def test_a_strangers_cache_is_taken_as_it_is():
    class Dict(dict):
        def get_many(self, keys):
            return {key: self[key] for key in keys if key in self}

        def set_many(self, rows):
            self.update(rows)

        def discard(self, keys):
            for key in keys:
                self.pop(key, None)

    cache = Dict()

    assert open_cache(cache) is cache


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        pytest.param("redis://localhost", "Redis caches are not available yet", id="redis"),
        pytest.param("rediss://localhost/0", "Redis caches are not available yet", id="redis-tls"),
        pytest.param("https://example.com/x", "no cache for https:// URLs", id="other-url"),
        pytest.param({}, "not dict", id="dict"),
        pytest.param(MemoryCache, "not type", id="class-instead-of-object"),
        pytest.param("", "cannot be ''", id="empty"),
        pytest.param("a\0b", "cannot be", id="zero-byte"),
        pytest.param(":memory:", "use MemoryCache", id="memory"),
    ],
)
def test_what_can_be_no_cache_is_refused(wrong, says):
    with pytest.raises(ConfigError, match=says):
        open_cache(wrong)


def test_the_package_offers_its_nouns_and_nothing_else():
    assert dir(voxvec.caches) == sorted(voxvec.caches.__all__, key=lambda name: (name.islower(), name))
    with pytest.raises(AttributeError, match="no attribute 'DiskCache'"):
        voxvec.caches.DiskCache  # noqa: B018 -- asking is the test

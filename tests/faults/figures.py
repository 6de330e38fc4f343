"""Measures what the promises put into numbers.

    python -m tests.faults.figures                     the quick ones
    python -m tests.faults.figures --all               the slow ones too
    python -m tests.faults.figures storm outage        these

Each line says what was measured, the number and its bound; one that is broken ends the command with status 1.
A figure is a function decorated with `figure` that returns a number.
"""

import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import anyio
from tests.faults import streams, virtual

import voxvec as vv
from voxvec import rows
from voxvec.testing import FakeOpenAI, Fault, Limits


@dataclass(frozen=True)
class Figure:
    """One number and what it may be.

    Attributes:
        name: To ask for it.
        says: What is measured.
        most: Its upper bound.
        unit: Of the number.
        slow: Whether it takes more than a few seconds.
        measure: Takes the number.
    """

    name: str
    says: str
    most: float
    unit: str
    slow: bool
    measure: object

    def line(self, value):
        verdict = "ok" if value <= self.most else "BROKEN"
        return f"{self.name:<14} {value:>10.4g} of {self.most:<8g} {self.unit:<12} {verdict:<7} {self.says}"


FIGURES = {}


def figure(says, *, most, unit="", slow=False):
    """Register a function that takes no arguments and returns a number; its name is the figure's."""

    def register(measure):
        name = measure.__name__
        FIGURES[name] = Figure(name, says, most, unit, slow, measure)
        return measure

    return register


def texts(n):
    return [f"text {at}" for at in range(n)]


async def embed(world, n, **settings):
    """One call of ``n`` requests; what came of it."""
    async with world.embedder(**settings) as embedder:
        try:
            vectors = await embedder.embed(texts(n))
        except vv.VoxvecError as error:
            return error
        assert not vectors.failed
        return vectors


def played(story, **settings):
    """The worse of two worlds."""
    return max(virtual.play(story, seed=seed, **settings) for seed in (1, 2))


@figure("load of a storm of 3 s met by 60 callers", most=1.12, unit="x requests")
def storm():
    return played(storm_story)


async def storm_story(world):
    world.fake.misbehave(Fault(status=429), when=world.during(0.0, 3.0), times=None)
    answered = []

    async def call(text):
        answered.append(await embedder.embed_one(text))

    async with world.embedder() as embedder, anyio.create_task_group() as group:
        for text in texts(60):
            group.start_soon(call, text)
    assert len(answered) == world.fake.billed == 60
    return world.fake.asked / 60


@figure("load of 400 requests with 2 s of rejections in the middle", most=1.03, unit="x requests")
def interlude():
    return played(interlude_story)


async def interlude_story(world):
    world.fake.misbehave(Fault(status=429), when=world.during(0.5, 2.5), times=None)
    vectors = await embed(world, 400, workers=8)
    assert len(vectors) == world.fake.billed == 400
    return world.fake.asked / 400


@figure("requests for 100 at a stated limit of 20 per second", most=100, unit="requests")
def limit():
    return played(limit_story, limits=Limits(requests=1_200, burst=1.0))


async def limit_story(world):
    vectors = await embed(world, 100)
    assert len(vectors) == world.fake.billed == 100
    assert world.age < 1.3 * (100 - 20) / 20
    return world.fake.asked


@figure("requests for each of 100 while a quarter is answered with 503", most=1.4, unit="per request")
def flaky():
    return played(flaky_story)


async def flaky_story(world):
    world.fake.misbehave(Fault(status=503), times=None, chance=0.25)
    vectors = await embed(world, 100, workers=8)
    assert len(vectors) == world.fake.billed == 100
    return world.fake.asked / 100


@figure("requests of 8 workers to a dead server until it is left alone", most=28, unit="requests")
def outage():
    return played(lambda world: outage_story(world, before=8.0, probes=3))


@figure("the same until the call gives up", most=40, unit="requests")
def surrender():
    return played(lambda world: outage_story(world, before=3_600.0, probes=0))


async def outage_story(world, *, before, probes):
    world.fake.misbehave(Fault(status=500), times=None)
    deadline = {"deadline": before} if probes else {}
    error = await embed(world, 100, workers=8, **deadline)
    assert isinstance(error, vv.errors.ServerError)
    assert (error.done, error.failed + error.pending) == (0, 100)
    assert world.age <= before + 0.25
    return world.fake.asked - probes


@figure("requests sent in the second for which one of eight workers was told to wait", most=0, unit="requests")
def forbidden():
    return played(forbidden_story, grace=0.1)


async def forbidden_story(world):
    world.fake.misbehave(Fault(status=429, retry_after=1.0), at=30)
    vectors = await embed(world, 100, workers=8)
    assert len(vectors) == 100
    assert world.fake.asked == 101
    return world.fake.forbidden


@figure("time to fail while the breaker is open, the least of 100 calls", most=1.0, unit="ms")
def breaker():
    return virtual.play(breaker_story)


async def breaker_story(world):
    world.fake.misbehave(Fault(status=429, code="insufficient_quota"), times=None)
    took, nexts = [], []
    async with world.embedder() as embedder:
        for text in texts(100):
            start = time.perf_counter()
            try:
                await embedder.embed_one(text)
            except vv.errors.QuotaError as error:
                took.append(1_000 * (time.perf_counter() - start))
                nexts.append(error.retry_after)
    assert world.fake.asked == 1
    assert nexts[0] is None
    assert all(0 < seconds <= 60 for seconds in nexts[1:])
    return min(took)


def in_memory(measure):
    """Call it with the path of a cache in a folder that is gone afterwards."""
    folder = next(filter(os.path.isdir, ["/dev/shm"]), None)  # noqa: S108 -- fine for a test
    with tempfile.TemporaryDirectory(dir=folder) as made:
        return measure(Path(made) / "cache.db")


@figure("acknowledged rows lost by a writer killed at 200 random moments", most=0, unit="rows", slow=True)
def kill():
    from tests.faults import test_sqlite  # noqa: PLC0415 -- takes longer than the figures of others

    return int(in_memory(lambda path: test_sqlite.kill(path, 200, seed=int(time.time()))))


@figure("wrong rows believed after one flipped bit, 10,000 times", most=0, unit="rows", slow=True)
def flip():
    from tests.faults import test_sqlite  # noqa: PLC0415 -- as above

    return in_memory(lambda path: test_sqlite.flip(path, 10_000, seed=int(time.time())))[1]


@figure("texts bought by two processes with one job and one cache", most=1.05, unit="x the texts", slow=True)
def shared():
    from tests import test_caches_leases  # noqa: PLC0415 -- as above

    return in_memory(lambda path: test_caches_leases.two_processes(path, 400).billed) / 400


@figure("time that 100 hits of 1,536 dims take in a cache file, the least of 200", most=1.0, unit="ms")
def hits():
    return in_memory(hits_in)


def hits_in(path):
    keys = [at.to_bytes(rows.KEY_BYTES, "big") for at in range(100)]
    head = {"kind": rows.Kind.VECTOR, "width": 1_536, "tokens": 1, "model": "text-embedding-3-small"}
    with vv.SqliteCache(path) as cache:
        cache.set_many({key: rows.pack(key, bytes(4 * 1_536), **head) for key in keys})
        took = []
        for _ in range(200):
            start = time.perf_counter()
            assert len(cache.get_many(keys)) == 100
            took.append(1_000 * (time.perf_counter() - start))
    return min(took)


@figure("growth of a process that streams a million texts at 8 dims", most=64, unit="MiB", slow=True)
def stream():
    return streams.growth(1_000_000)


@figure("wrong answers of 100 forks of a client in use, in child and parent", most=0, unit="answers", slow=True)
def fork():
    many = texts(3)
    wrong = 0
    with FakeOpenAI().serve() as url, mock.patch.dict(os.environ, {"no_proxy": "127.0.0.1"}):
        embedder = vv.Embedder(virtual.model_of(2), api_key="sk-none", base_url=url)
        right = embedder.embed(many).tolist()
        for run in range(100):
            child = os.fork()
            if not child:
                os._exit(embedder.embed([*many, f"child {run}"]).tolist()[:3] != right)
            wrong += embedder.embed([*many, f"parent {run}"]).tolist()[:3] != right
            wrong += os.waitpid(child, 0)[1] != 0
        embedder.close()
    return wrong


def main(asked):
    wanted = [one for one in asked if not one.startswith("-")]
    chosen = [FIGURES[one] for one in wanted] or [one for one in FIGURES.values() if "--all" in asked or not one.slow]
    broken = False
    for one in chosen:
        value = one.measure()
        broken |= value > one.most
        sys.stdout.write(one.line(value) + "\n")
    return int(broken)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

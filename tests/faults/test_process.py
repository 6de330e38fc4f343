"""Threads, event loops, forks, signals and handles: whatever the process does, nothing is lost or left behind."""

import asyncio
import gc
import json
import logging
import os
import pickle
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback
import warnings
import weakref
from contextlib import suppress
from pathlib import Path

import pytest

import voxvec as vv
from voxvec import MemoryCache, SqliteCache
from voxvec._run import Lane
from voxvec.errors import ServerError
from voxvec.policy import Pace, Retry
from voxvec.testing import FakeOpenAI, Fault

SMALL = vv.models.find("text-embedding-3-small", dims=8).replace(max_items=2)
TEXTS = [f"text {n}" for n in range(16)]
PATIENCE = 20.0  # nothing here takes that long [s]

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes as POSIX knows them")
# From 3.12 on, Python warns of any fork beside a thread, which is what these are about.
quiet = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


class Child:
    """A forked copy of this process that does one thing, and tells what came of it."""

    def __init__(self, work):
        self._read, write = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(write)
            return
        status = 1
        logging.disable()  # pytest's log goes into a file, whose lock another thread may have held at the fork
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.write(write, json.dumps(work()).encode())
            status = 0
        except BaseException:  # noqa: BLE001 -- told to the parent
            os.write(write, json.dumps(traceback.format_exc()).encode())
        finally:
            os._exit(status)

    def result(self):
        with os.fdopen(self._read, "rb") as pipe:
            said = pipe.read()
        _, status = os.waitpid(self.pid, 0)
        assert status == 0, said.decode()
        return json.loads(said)


def gate_of(embedder):
    return embedder._client.lane()._gate


# --- Ctrl-C


def interrupted(embed, ready):
    """How long a call goes on after Ctrl-C, pressed once ``ready``: in a child process, by a real signal [s]."""

    def press():
        end = time.monotonic() + PATIENCE
        while not ready() and time.monotonic() < end:
            time.sleep(0.001)
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    pressed = []
    threading.Thread(target=press, daemon=True).start()
    try:
        embed()
    except KeyboardInterrupt:
        return time.monotonic() - pressed[0]
    return "it was not interrupted"


class Slow(MemoryCache):
    """A cache that takes its time to write."""

    def __init__(self):
        super().__init__()
        self.writing = threading.Event()

    def set_many(self, rows, /):
        self.writing.set()
        time.sleep(0.2)
        super().set_many(rows)


def backing_off(texts):
    fake = FakeOpenAI()
    fake.misbehave(Fault(status=500), times=None)
    embedder = vv.Embedder(SMALL, client=fake.client(), retry=Retry(first=1e6, longest=1e6))
    return lambda: embedder.embed(texts), lambda: fake.asked >= 1


def at_the_gate(texts):
    fake = FakeOpenAI()
    fake.misbehave(Fault(status=429, retry_after=50.0))
    embedder = vv.Embedder(SMALL, client=fake.client())
    return lambda: embedder.embed(texts), lambda: fake.asked >= 1


def reading(texts):
    fake = FakeOpenAI()
    fake.misbehave(Fault(delay=60.0), times=None)
    embedder = vv.Embedder(SMALL, client=fake.client())
    return lambda: embedder.embed(texts), lambda: fake.asked >= 1


def writing(texts):
    cache = Slow()
    embedder = vv.Embedder(SMALL, client=FakeOpenAI().client(), cache=cache)
    return lambda: embedder.embed(texts), cache.writing.is_set


@forks
@quiet
@pytest.mark.case("X01")
@pytest.mark.parametrize("texts", [TEXTS[:1], TEXTS], ids=["one-request", "eight"])
@pytest.mark.parametrize("state", [backing_off, at_the_gate, reading, writing])
def test_ctrl_c_ends_any_wait_at_once(state, texts):
    def work():
        embed, ready = state(texts)
        return interrupted(embed, ready)

    assert Child(work).result() < 5


@forks
@quiet
@pytest.mark.case("X02")
def test_ctrl_c_in_a_job_of_eight_workers_keeps_what_was_delivered(tmp_path):
    fake, path = FakeOpenAI(), tmp_path / "vectors.db"
    texts = [f"text {n}" for n in range(32)]
    fake.misbehave(Fault(delay=60.0), when=lambda asked: "text 30" in asked.inputs, times=None)

    def work():
        embedder = vv.Embedder(SMALL, client=fake.client(), cache=path, workers=8)
        took = interrupted(
            lambda: embedder.embed(texts), lambda: fake.delivered == 30 and SqliteCache(path).stats().rows
        )
        return took, fake.delivered

    took, delivered = Child(work).result()

    assert took < 5
    assert delivered - 2 * 8 <= SqliteCache(path).stats().rows


@forks
@quiet
@pytest.mark.case("X02")
def test_after_ctrl_c_answers_that_come_later_are_kept_while_the_program_lives(until):
    def work():
        fake, cache, go = FakeOpenAI(), MemoryCache(), threading.Event()
        fake.mutate = lambda request, reply: (go.wait(PATIENCE), reply)[1]
        embedder = vv.Embedder(SMALL, client=fake.client(), cache=cache, workers=8)
        took = interrupted(lambda: embedder.embed(["ant"]), lambda: fake.asked == 1)
        go.set()
        until(lambda: cache.stats().rows == 1)
        return took, fake.asked

    took, asked = Child(work).result()

    assert took < 5
    assert asked == 1


@forks
@quiet
@pytest.mark.case("X02")
def test_the_second_ctrl_c_is_immediate_even_if_the_cache_is_stuck():
    def work():
        class Stuck(Slow):
            def set_many(self, rows, /):
                self.writing.set()
                threading.Event().wait(60)

        cache = Stuck()
        embedder = vv.Embedder(SMALL, client=FakeOpenAI().client(), cache=cache)

        def again():
            cache.writing.wait(PATIENCE)
            for _ in range(20):
                time.sleep(0.05)
                os.kill(os.getpid(), signal.SIGINT)

        start = time.monotonic()
        threading.Thread(target=again, daemon=True).start()
        try:
            embedder.embed(TEXTS)
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            return time.monotonic() - start
        return "it was not interrupted"

    assert Child(work).result() < 10


# --- cancellation


class Restless(FakeOpenAI):
    """A server that fails now and then."""

    def __init__(self, seed):
        super().__init__()
        draw = random.Random(seed)  # noqa: S311 -- the same faults every time
        self.misbehave(Fault(status=503), when=lambda asked: draw.random() < 0.2, times=None)
        self.misbehave(Fault(status=429, retry_after=0), when=lambda asked: draw.random() < 0.1, times=None)


async def at_rest(embedder):
    """Wait until everything was given back, and say what was not."""
    lane = embedder._client.lane()
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        left = (lane._gate.in_flight, lane._gate._probing, len(lane._flights._slots), len(lane._waiting), len(tasks))
        if not any(left):
            return None
        await asyncio.sleep(0.001)
    return left


async def cancelled_at_random(rounds, embedder, seed):
    draw = random.Random(seed)  # noqa: S311 -- the same moments every time
    ends = set()
    for number in range(rounds):
        texts = [f"text {number} {n}" for n in range(8)]
        task = asyncio.create_task(embedder.embed(texts))
        steps = draw.randrange(60)
        for _ in range(steps):
            await asyncio.sleep(0)
        if draw.random() < 0.5:
            await asyncio.sleep(draw.random() * 0.01)
        task.cancel()
        try:
            await task
            ends.add("done")
        except asyncio.CancelledError:
            ends.add("cancelled")
        except vv.VoxvecError:
            ends.add("failed")
        assert (await at_rest(embedder)) is None
    return ends


HANDLES = Path("/proc/self/fd")


def handles():
    return len(list(HANDLES.iterdir()))


@pytest.mark.skipif(not HANDLES.is_dir(), reason="handles as Linux lists them")
@pytest.mark.case("X03")
@pytest.mark.parametrize("cache", [None, MemoryCache])
@pytest.mark.parametrize("rounds", [25, pytest.param(500, marks=pytest.mark.slow)])
def test_a_cancellation_at_any_point_leaks_nothing(rounds, cache):
    async def main(url):
        embedder = vv.AsyncEmbedder(
            SMALL,
            api_key="sk-x",
            base_url=url,
            cache=cache and cache(),
            retry=Retry(first=0.002, longest=0.01, budget=vv.Budget(tokens=1e9)),
            workers=4,
        )
        await embedder.embed(TEXTS)
        before = handles()
        ends = await cancelled_at_random(rounds, embedder, seed=7)
        assert "cancelled" in ends
        vectors = await embedder.embed(TEXTS)
        assert vectors.shape == (16, 8)
        await embedder.close()
        await asyncio.sleep(0.01)
        return before, handles()

    with Restless(5).serve() as url:
        before, after = asyncio.run(main(url))

    assert after <= before


@pytest.mark.case("X04", "F47")
def test_a_time_out_around_a_call_ends_it_and_the_next_one_works(vectors_of):
    fake = FakeOpenAI()
    fake.misbehave(Fault(delay=60.0))

    async def main(url):
        embedder = vv.AsyncEmbedder(SMALL, api_key="sk-x", base_url=url, workers=1)
        start = time.monotonic()
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.3):
                await embedder.embed(["ant"])
        took = time.monotonic() - start
        assert not isinstance(caught.value, vv.VoxvecError)
        assert gate_of(embedder).in_flight == 0
        assert len(asyncio.all_tasks()) == 1
        vectors = await embedder.embed(["ant"])
        await embedder.close()
        return took, vectors.tolist()

    with fake.serve() as url:
        took, vectors = asyncio.run(main(url))

    assert 0.3 <= took < 5
    assert vectors == vectors_of(["ant"], 8)


@pytest.mark.case("F47")
@pytest.mark.parametrize("fault", [Fault(status=429, retry_after=50.0), Fault(status=500)], ids=["gate", "back-off"])
def test_a_call_that_is_cancelled_while_it_waits_ends_at_once(fault):
    fake = FakeOpenAI()
    fake.misbehave(fault, times=None)

    async def main():
        embedder = vv.AsyncEmbedder(SMALL, client=fake.async_client(), retry=Retry(first=1e6, longest=1e6))
        task = asyncio.create_task(embedder.embed(["ant"]))
        while not fake.asked or gate_of(embedder).in_flight:  # noqa: ASYNC110 -- a thread brings it about
            await asyncio.sleep(0.001)
        start = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await at_rest(embedder)) is None
        return time.monotonic() - start

    assert asyncio.run(main()) < 5
    assert fake.asked == 1


class Held(FakeOpenAI):
    """A server that answers when it is let."""

    def __init__(self):
        super().__init__(mutate=self.hold)
        self.let = threading.Event()

    def hold(self, _, reply):
        assert self.let.wait(PATIENCE)
        return reply


async def first_is_cancelled(fake, cache, others):
    embedder = vv.AsyncEmbedder(SMALL, client=fake.async_client(), cache=cache)
    first = asyncio.create_task(embedder.embed(["ant", "bee"]))
    while not fake.asked:  # noqa: ASYNC110 -- a thread brings it about
        await asyncio.sleep(0.001)
    rest = [asyncio.create_task(embedder.embed(["bee", "ant"])) for _ in range(others)]
    while len(embedder._client.lane()._waiting) < others:  # noqa: ASYNC110 -- a thread brings it about
        await asyncio.sleep(0.001)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    fake.let.set()
    vectors = [(await each).tolist() for each in rest]
    assert (await at_rest(embedder)) is None
    return vectors


@pytest.mark.case("X05")
def test_when_the_first_caller_is_cancelled_the_others_get_its_answer(vectors_of):
    fake = Held()

    vectors = asyncio.run(first_is_cancelled(fake, None, others=3))

    assert vectors == [vectors_of(["bee", "ant"], 8)] * 3
    assert (fake.asked, fake.billed) == (1, 2)


@pytest.mark.case("X05")
def test_what_was_sent_for_a_cancelled_call_is_kept_if_there_is_a_cache():
    fake, cache = Held(), MemoryCache()

    asyncio.run(first_is_cancelled(fake, cache, others=0))

    assert cache.stats().rows == 2
    assert fake.asked == 1


# --- loops and threads


@pytest.mark.case("F46", "X06")
def test_a_client_made_outside_any_loop_works_in_three_one_after_the_other(vectors_of):
    fake = FakeOpenAI()

    with fake.serve() as url:
        embedder = vv.AsyncEmbedder(SMALL, api_key="sk-x", base_url=url)

        async def main(text):
            vector = await embedder.embed_one(text)
            again = await embedder.embed_one(f"{text} again")
            await embedder._client.door()._client.close()
            return [vector.tolist(), again.tolist()]

        for text in ("ant", "bee", "cat"):
            assert asyncio.run(main(text)) == vectors_of([text, f"{text} again"], 8)

    assert fake.asked == 6


@pytest.mark.case("X07")
def test_a_blocking_call_works_inside_a_running_loop(vectors_of):
    embedder = vv.Embedder(SMALL, client=FakeOpenAI().client())

    async def cell():
        return embedder.embed(TEXTS).tolist(), [part.shape for part in embedder.stream(TEXTS)]

    vectors, shapes = asyncio.run(cell())

    assert vectors == vectors_of(TEXTS, 8)
    assert shapes == [(2, 8)] * 8


@pytest.mark.case("X08", "F35")
@pytest.mark.parametrize(("threads", "settings", "most"), [(64, {"workers": 8}, 8), (200, {}, 16)])
def test_many_threads_share_one_client(together, vectors_of, threads, settings, most):
    fake = FakeOpenAI()
    embedder = vv.Embedder(SMALL, client=fake.client(), **settings)
    texts = [f"text {n}" for n in range(threads)]

    results = together(*(lambda text=text: embedder.embed_one(text) for text in texts))

    assert [vector.tolist() for vector in results] == vectors_of(texts, 8)
    assert fake.asked == threads
    assert fake.peak <= most


@pytest.mark.case("X17")
def test_gate_and_budget_hold_under_many_threads(together):
    lane = Lane(Retry(first=0, longest=0), Pace(), 8)
    most, lock, inside, peaks = 200, threading.Lock(), [], []

    def send(draw):
        with lock:
            inside.append(1)
            peaks.append(len(inside))
            assert 0 <= lane._gate.purse <= most
        with lock:
            inside.pop()
        if draw.random() < 0.3:
            raise ServerError("no", kind="transient", status=500)

    def caller(seed):
        draw = random.Random(seed)  # noqa: S311 -- the same faults every time
        for _ in range(20):
            with suppress(vv.ServiceError):
                lane.ask(lane.call(None), lambda left: send(draw))

    together(*(lambda seed=seed: caller(seed) for seed in range(32)))

    assert max(peaks) <= 8
    assert lane._gate.in_flight == 0
    assert 0 <= lane._gate.purse <= most


# --- fork, spawn and pickle


@forks
@quiet
@pytest.mark.case("F48")
@pytest.mark.parametrize("runs", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_after_a_fork_parent_and_children_get_their_own_answers(tmp_path, vectors_of, runs):
    with FakeOpenAI().serve() as url:
        embedder = vv.Embedder(SMALL, api_key="sk-x", base_url=url, cache=tmp_path / "vectors.db")
        embedder.embed(TEXTS)
        right = 0
        for run in range(runs):
            theirs, ours = [f"child {run} {n}" for n in range(6)], [f"parent {run} {n}" for n in range(6)]
            child = Child(lambda theirs=theirs: embedder.embed([*theirs, *TEXTS]).tolist())
            right += embedder.embed(ours).tolist() == vectors_of(ours, 8)
            right += child.result() == vectors_of([*theirs, *TEXTS], 8)

    assert right == 2 * runs


@forks
@quiet
@pytest.mark.case("F48")
def test_after_a_fork_async_clients_start_anew_even_in_the_parents_loop(vectors_of):
    with FakeOpenAI().serve() as url:
        embedder = vv.AsyncEmbedder(SMALL, api_key="sk-x", base_url=url)

        async def own():
            return (await embedder.embed(["ant"])).tolist(), id(embedder._client.door()), id(embedder._client.lane())

        async def main():
            vectors, door, lane = await own()
            child = Child(lambda: (asyncio.run(own()), door, lane))
            theirs = await asyncio.to_thread(child.result)
            assert (await embedder.embed(["bee"])).tolist() == vectors_of(["bee"], 8)
            return vectors, theirs

        vectors, ((theirs, *new), *old) = asyncio.run(main())

    assert vectors == theirs == vectors_of(["ant"], 8)
    assert not set(new) & set(old)


@forks
@quiet
@pytest.mark.case("F48")
def test_a_users_own_client_is_refused_in_the_child_in_both_twins():
    fake = FakeOpenAI()
    sync = vv.Embedder(SMALL, client=fake.client())
    tasks = vv.AsyncEmbedder(SMALL, client=fake.async_client())
    sync.embed(["ant"])
    asyncio.run(tasks.embed(["ant"]))

    def refused(call):
        try:
            call()
        except vv.ConfigError as error:
            return str(error)
        return ""

    def work():
        return refused(lambda: sync.embed(["bee"])), refused(lambda: asyncio.run(tasks.embed(["bee"])))

    for words in Child(work).result():
        assert "make a client in the child process" in words


LOCKED = """
    # Those that a fork does not wait for.
    held, let = threading.Event(), threading.Event()

    def holder():
        with embedder._client._mine(), embedder._client._lane._changed:
            held.set()
            let.wait()

    thread = threading.Thread(target=holder)
    thread.start()
    held.wait()
    fork()
    let.set()
    thread.join()
"""
BUSY = """
    stop = threading.Event()

    def busy(name):
        number = 0
        while not stop.is_set():
            number += 1
            embedder.embed([f"{name} {number}", f"{name} {number} more", "ant"])

    threads = [threading.Thread(target=busy, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for run in range(6):
        fork()
    stop.set()
    for thread in threads:
        thread.join()
"""
FORKING = """
    import asyncio, faulthandler, os, sys, threading
    import voxvec as vv
    from voxvec.testing import FakeOpenAI

    os.environ["no_proxy"] = "127.0.0.1"
    fake = FakeOpenAI()
    model = vv.models.find("text-embedding-3-small", dims=8).replace(max_items=2)
    with fake.serve() as url:
        embedder = vv.Embedder(model, api_key="sk-x", base_url=url, cache=sys.argv[1])
        other = vv.AsyncEmbedder(model, api_key="sk-x", base_url=url, cache=vv.MemoryCache())
        right = embedder.embed(["ant", "bee"]).tolist()
        # A fork amid an import would leave Python's own lock on the module locked in the child.
        asyncio.run(other.embed(["ant"]))

        def fork():
            child = os.fork()
            if not child:
                faulthandler.dump_traceback_later(20, exit=True)
                found = [embedder.embed(["ant", "bee"]).tolist(), asyncio.run(other.embed(["ant", "bee"])).tolist()]
                found += [embedder.embed([f"child {os.getpid()}", "ant"]).tolist()[1:]]
                os._exit(found != [right, right, right[:1]])
            _, status = os.waitpid(child, 0)
            print(status, flush=True)

        STORY
        embedder.close()
"""


@forks
@pytest.mark.case("X09")
@pytest.mark.parametrize(
    ("story", "children"),
    [pytest.param(LOCKED, 1, id="locks-held"), pytest.param(BUSY, 6, id="busy-threads", marks=pytest.mark.slow)],
)
def test_a_fork_while_locks_are_held_does_not_hang_the_child(tmp_path, story, children):
    # In a program of its own: pytest's log is written to under a lock that a fork does not free.
    story = textwrap.indent(textwrap.dedent(story), "    ").strip()
    script = textwrap.dedent(FORKING).replace("STORY", story)
    run = subprocess.run(  # noqa: S603 -- our own script
        [sys.executable, "-c", script, str(tmp_path / "vectors.db")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert run.stderr == ""
    assert run.stdout.split() == ["0"] * children


@pytest.fixture(autouse=True)
def _swept():
    """Clients that a test left open are collected with it, not in the middle of another."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


CLASSES = [vv.Embedder, vv.AsyncEmbedder, vv.Transcriber, vv.AsyncTranscriber]


@pytest.mark.case("X10")
@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_client_is_not_pickled_and_says_what_to_do_instead(cls, protocol):
    model = "gpt-transcribe" if "Transcriber" in cls.__name__ else SMALL
    client = cls(model, api_key="sk-canary-of-the-pickle")

    with pytest.raises(TypeError, match="make one in each process") as caught:
        pickle.dumps(client, protocol)

    assert "canary" not in str(caught.value)


@pytest.mark.case("X10")
@pytest.mark.slow
def test_a_pool_of_processes_refuses_a_client_and_takes_a_maker():
    script = """
        import multiprocessing, sys
        from concurrent.futures import ProcessPoolExecutor
        import voxvec as vv

        if __name__ == "__main__":
            spawn = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, mp_context=spawn) as pool:
                try:
                    pool.submit(print, vv.Embedder("text-embedding-3-small", api_key="sk-canary")).result(60)
                except TypeError as error:
                    sys.stdout.write(str(error))
    """
    run = subprocess.run(  # noqa: S603 -- our own script
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120, check=False
    )

    assert "make one in each process" in run.stdout
    assert "canary" not in run.stdout + run.stderr


@pytest.mark.case("X11")
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["threads", "tasks", "closed-loop"])
def test_a_program_that_ends_with_work_pending_says_nothing_odd(kind):
    script = """
        import asyncio, sys, threading, warnings
        import voxvec as vv
        from voxvec.testing import FakeOpenAI, Fault

        fake = FakeOpenAI()
        fake.misbehave(Fault(delay=30.0), times=None)
        texts = [f"text {n}" for n in range(6000)]

        async def main():
            embedder = vv.AsyncEmbedder("text-embedding-3-small", api_key="sk-x", base_url=url, cache=vv.MemoryCache())
            pending = [asyncio.create_task(embedder.embed(texts)) for _ in range(3)]
            while fake.asked < 3:
                await asyncio.sleep(0.01)
            pending[0].cancel()
            await asyncio.sleep(0.01)

        with fake.serve() as url:
            if "threads" in sys.argv:
                embedder = vv.Embedder("text-embedding-3-small", api_key="sk-x", base_url=url)
                threading.Thread(target=embedder.embed, args=(texts,), daemon=True).start()
                while fake.asked < 3:
                    pass
            else:
                asyncio.run(main())
            print("end", flush=True)
            import os
            sys.stdout.flush()
            if "closed-loop" in sys.argv:
                sys.exit()
    """
    run = subprocess.run(  # noqa: S603 -- our own script
        [sys.executable, "-c", textwrap.dedent(script), kind],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert run.stdout == "end\n"
    assert run.stderr == ""


# --- handles and memory


@forks
@quiet
@pytest.mark.case("X15")
def test_with_too_few_handles_a_call_fails_by_name_or_makes_do_with_fewer(tmp_path, vectors_of):
    import resource  # noqa: PLC0415 -- not on every system

    fake = FakeOpenAI()
    path = tmp_path / "vectors.db"
    with fake.serve() as url:
        embedder = vv.Embedder(
            SMALL, api_key="sk-x", base_url=url, cache=path, retry=Retry(first=0.001, longest=0.001), workers=16
        )
        embedder.embed(["warm"])

        def work():
            warnings.simplefilter("ignore")  # a cache that cannot be opened says so
            open_ = handles()
            resource.setrlimit(resource.RLIMIT_NOFILE, (open_ + 6, open_ + 6))
            try:
                return embedder.embed([f"text {n}" for n in range(64)]).tolist()
            except vv.VoxvecError as error:
                return [type(error).__name__, error.billed]

        result = Child(work).result()
        texts = [f"text {n}" for n in range(64)]
        after = vv.Embedder(SMALL, api_key="sk-x", base_url=url, cache=path).embed(texts)

    assert result == vectors_of(texts, 8) or result[0] in {"NetworkError", "ConfigError"}
    assert after.tolist() == vectors_of(texts, 8)


@pytest.mark.case("X16")
def test_running_out_of_memory_while_reading_an_answer_leaves_the_cache_whole(twin, server, monkeypatch, vectors_of):
    from voxvec.embedding import wire  # noqa: PLC0415 -- to be broken

    real, calls = wire.decode, []

    def decode(*args, **kwargs):
        calls.append(args)
        if len(calls) == 3:
            raise MemoryError("of the test")
        return real(*args, **kwargs)

    monkeypatch.setattr(wire, "decode", decode)
    cache = MemoryCache()
    embedder = twin.embedder(SMALL, cache=cache, workers=1)

    with pytest.raises(MemoryError, match="of the test"):
        embedder.embed(TEXTS)

    assert cache.stats().rows == 4
    assert embedder.embed(TEXTS).tolist() == vectors_of(TEXTS, 8)
    assert len(server.texts) == 18


class Watched:
    """Something whose end can be watched."""


@pytest.mark.case("X19")
def test_kept_failures_keep_no_frames_requests_or_batches_alive():
    fake = FakeOpenAI()
    fake.misbehave(Fault(status=400), times=None)
    embedder = vv.Embedder(SMALL, client=fake.client())
    kept, gone = [], []

    def call(number):
        local = Watched()
        gone.append(weakref.ref(local))
        try:
            embedder.embed([f"text {number}"], on_error="raise")
        except vv.RefusedError as error:
            kept.append(error.with_traceback(None))
        del local

    for number in range(50):
        call(number)
    gc.collect()

    assert not [ref for ref in gone if ref()]
    kinds = reachable(kept)
    assert not {kind for kind in kinds if kind in {"Batch", "Request", "Response", "frame", "EmbeddingJob", "Slot"}}


def reachable(roots):
    """Names of the types of all that is kept alive by these."""
    seen, kinds, stack = set(), set(), list(roots)
    while stack:
        thing = stack.pop()
        if id(thing) in seen or isinstance(thing, type | type(os)) or callable(thing):
            continue
        seen.add(id(thing))
        kinds.add(type(thing).__name__)
        stack += gc.get_referents(thing)
    return kinds


@pytest.mark.case("X19")
def test_failures_kept_by_a_call_that_goes_on_hold_no_frames(twin):
    fake = FakeOpenAI()
    fake.misbehave(Fault(status=400), times=None)

    vectors = twin.embedder(SMALL, client=twin.client(fake)).embed(TEXTS, on_error="keep")

    kinds = reachable(vectors.failed.values())
    assert len(vectors.failed) == 16
    assert not kinds & {"frame", "traceback", "Batch", "Request", "Response", "EmbeddingJob", "Slot"}

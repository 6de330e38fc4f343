import gc
import threading
import weakref

import anyio
import pytest

from voxvec._threads import PerLoop, in_thread

PATIENCE = 5.0  # nothing here takes that long [s]


class Thing:
    """Something whose end can be watched."""


def fail(_, threads):
    threads.append(threading.current_thread())
    raise ValueError("x")


def test_what_a_thread_raised_and_worked_on_ends_with_its_future():
    thing, threads = Thing(), []
    gone = weakref.ref(thing)
    gc.disable()
    try:
        future = in_thread(fail, thing, threads)
        with pytest.raises(ValueError, match="x") as caught:
            future.result(PATIENCE)
        threads[0].join(PATIENCE)
        del thing, future, caught
        assert gone() is None
    finally:
        gc.enable()


def test_an_object_of_a_loop_ends_with_its_owner_though_the_loop_goes_on():
    async def main():
        own = PerLoop(Thing)
        gone = weakref.ref(own.get())
        assert gone() is not None
        del own
        gc.collect()
        return gone()

    assert anyio.run(main) is None


def test_an_object_of_a_loop_ends_with_its_loop_though_the_owner_goes_on():
    own = PerLoop(Thing)

    async def main():
        return weakref.ref(own.get())

    gone = anyio.run(main)
    gc.collect()

    assert gone() is None


def test_a_dropped_object_is_handed_over_and_a_new_one_made():
    own = PerLoop(Thing)

    async def main():
        first = own.get()
        assert own.drop() is first
        assert own.drop() is None
        return own.get() is first

    assert anyio.run(main) is False


def test_loops_in_several_threads_that_begin_at_once_keep_their_own():
    own, start = PerLoop(Thing), threading.Barrier(8)

    async def main():
        start.wait(PATIENCE)
        first = own.get()
        await anyio.lowlevel.checkpoint()
        return first, own.get()

    pairs = [future.result(PATIENCE) for future in [in_thread(anyio.run, main) for _ in range(8)]]

    assert all(first is second for first, second in pairs)
    assert len({id(first) for first, _ in pairs}) == 8

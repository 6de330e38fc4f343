"""Threads and tasks by themselves: one beside the caller, many in order, one object per event loop.

`voxvec._run` builds its lanes on this.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from contextvars import copy_context
from functools import cache
from typing import TYPE_CHECKING, Generic, TypeVar
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
    from contextvars import Context

    from anyio.lowlevel import RunVar

__all__ = ["PerLoop", "aside", "in_order", "in_rounds", "in_thread"]

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 -- an item of work
R = TypeVar("R")


def in_thread(work: Callable[..., R], *args: object) -> Future[R]:
    """Run something in a thread of its own, with the caller's context variables.

    The thread is a daemon: a program that is told to end does not wait for a server.
    """
    future: Future[R] = Future()
    context = copy_context()
    threading.Thread(target=_fill, args=(future, context, work, args), daemon=True, name="voxvec").start()
    return future


def _fill(future: Future[R], context: Context, work: Callable[..., R], args: tuple[object, ...]) -> None:
    try:
        future.set_result(context.run(work, *args))
    except BaseException as error:  # noqa: BLE001 -- raised again by whoever asks for the result
        future.set_exception(error)
    finally:
        del future  # the traceback of its error holds this frame: they would keep each other


async def aside(work: Callable[..., R], *args: object) -> R:
    """Run something that blocks for a short while, such as a look into a cache, without holding up the event loop."""
    import anyio.to_thread  # noqa: PLC0415 -- as above

    return await anyio.to_thread.run_sync(work, *args)


def in_order(items: Iterable[I], work: Callable[[I], R], ahead: int) -> Iterator[R]:
    """Work on items side by side, yield the results in order, and never be more than ``ahead`` items ahead."""
    running: deque[Future[R]] = deque()
    source, failure = iter(items), None
    while True:
        try:
            item = next(source)
        except StopIteration:
            break
        except Exception as error:  # noqa: BLE001 -- the source's own, raised below after what came before it
            failure = error
            break
        running.append(in_thread(work, item))
        while running and (len(running) >= ahead or running[0].done()):
            yield running.popleft().result()
    while running:
        yield running.popleft().result()
    if failure is not None:
        raise failure


async def in_rounds(items: AsyncIterator[I], work: Callable[[I], Awaitable[R]], ahead: int) -> AsyncIterator[R]:
    """Work on ``ahead`` items side by side, yield their results in order, and go on with the next.

    Rounds, because a generator must not be suspended inside a group of running tasks.
    """
    import anyio  # noqa: PLC0415 -- as above

    async def one(item: I, position: int) -> None:
        try:
            results[position] = await work(item)
        except Exception as error:  # noqa: BLE001 -- raised below, outside the group, as itself
            failures[position] = error

    more = True
    while more:
        results: dict[int, R] = {}
        failures: dict[int, Exception] = {}
        async with anyio.create_task_group() as group:
            for position in range(ahead):
                try:
                    item = await anext(items, None)
                except Exception as error:  # noqa: BLE001 -- the source's own, raised below after what came before it
                    failures[position] = error
                    break
                more = item is not None
                if item is None:
                    break
                group.start_soon(one, item, position)
        for position in range(len(results) + len(failures)):
            if position in failures:
                raise failures[position]
            yield results[position]


class _Mark:
    """Stands for an event loop, and lives no longer than it: not all kinds of loops can be referred to weakly."""


_marking = threading.Lock()


@cache
def _marks() -> RunVar[_Mark]:
    from anyio.lowlevel import RunVar  # noqa: PLC0415 -- as above

    return RunVar("voxvec")


def _mark() -> _Mark:
    """The running loop's mark."""
    with _marking:  # loops in several threads may begin at once, and must agree on the variable
        marks = _marks()
    mark = marks.get(None)
    if mark is None:
        mark = _Mark()
        marks.set(mark)
    return mark


class PerLoop(Generic[T]):
    """One object per event loop, made when first asked for: what belongs to a loop must not be used in another.

    The objects hang on this one and not on the loop, so that they end with whichever ends first.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: WeakKeyDictionary[_Mark, T] = WeakKeyDictionary()

    def get(self) -> T:
        """The running loop's object."""
        mark = _mark()
        if mark not in self._made:
            self._made[mark] = self._make()
        return self._made[mark]

    def drop(self) -> T | None:
        """Forget the running loop's object, if there is one, and return it."""
        return self._made.pop(_mark(), None)

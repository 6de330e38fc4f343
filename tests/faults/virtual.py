"""An event loop in which waiting takes no time, and real clients in it: the same storm in the same order every time.

Nothing here runs in another thread, so whenever no task can go on, time jumps to the next one that is due.
"""

import asyncio
import random
import selectors
from contextlib import ExitStack
from unittest import mock

import anyio
import httpx2
import openai

import voxvec as vv
from voxvec import _run
from voxvec.local.exchange import Request
from voxvec.testing import FakeOpenAI

MODEL = "text-embedding-3-small"


class _Jumping(selectors.SelectSelector):
    """Says that time has passed instead of letting it."""

    seconds = 1_000.0

    def select(self, timeout=None):
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "nobody will ever wake anybody"
            self.seconds += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its time is the one of everything in it."""

    def __init__(self):
        self.jumping = _Jumping()
        super().__init__(self.jumping)

    def time(self):
        return self.jumping.seconds


async def _inline(work, *args):
    return work(*args)


def _asyncified(work):
    async def call(*args, **kwargs):
        return work(*args, **kwargs)

    return call


class _Wire(httpx2.AsyncBaseTransport):
    """To the fake server and back, within 20 to 80 ms and what the world adds."""

    def __init__(self, world):
        self.world, self.fake, self.chance = world, world.fake, world.chance

    async def handle_async_request(self, request):
        body = await request.aread()
        await anyio.sleep(self.chance.uniform(0.01, 0.04) + self.world.work(body))
        headers = {name.lower(): value for name, value in request.headers.items()}
        reply = self.fake(Request(request.method, request.url.path, headers, body))
        await anyio.sleep(self.chance.uniform(0.01, 0.04))
        return httpx2.Response(reply.status, headers=dict(reply.headers), content=reply.body)


class World:
    """A fake server and clients of it, all in one virtual time.

    Args:
        loop: Whose time it is.
        seed: Of all chance.
        settings: For the fake server.
    """

    def __init__(self, loop, seed, **settings):
        self.loop, self.chance = loop, random.Random(seed)  # noqa: S311 -- a story that repeats itself
        self.began = loop.time()
        self.fake = FakeOpenAI(tokens=len, clock=self, seed=seed, **settings)
        self.work = lambda body: 0.0  # how long the server takes for a request [s]

    def now(self):
        return self.loop.time()

    def sleep(self, seconds):
        raise AssertionError(f"a wait of {seconds} s would hold everybody up")

    @property
    def age(self):
        """Seconds since it began [s]."""
        return self.now() - self.began

    def during(self, start, end):
        """A condition for faults: the request comes in between these times [s]."""
        return lambda asked: start <= asked.arrived - self.began < end

    def embedder(self, **settings):
        http = httpx2.AsyncClient(transport=_Wire(self))
        client = openai.AsyncOpenAI(api_key="sk-none", base_url="http://fake.voxvec/v1", http_client=http)
        return vv.AsyncEmbedder(model_of(settings.pop("texts", 1)), client=client, **settings)


def model_of(texts):
    """A model that takes so many texts in one request."""
    return vv.models.find(MODEL, dims=8).replace(max_items=texts)


def play(story, *, seed=1, **settings):
    """Run a story, which is told its world, in a time of its own; what it returns."""
    loop = VirtualLoop()

    def now(_):
        return loop.time()

    with ExitStack() as patches:
        patches.callback(loop.close)
        patches.callback(random.setstate, random.getstate())
        random.seed(seed)
        for target, instead in {
            "voxvec.embedding.embedder.aside": _inline,
            "openai._base_client.asyncify": _asyncified,
        }.items():
            patches.enter_context(mock.patch(target, instead))
        patches.enter_context(mock.patch.object(_run.Clock, "now", now))
        world = World(loop, seed, **settings)
        try:
            return loop.run_until_complete(story(world))
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())

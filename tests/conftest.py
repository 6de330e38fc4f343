import functools
import importlib.util
import io
import json
import ssl
import threading
import time
import wave
from collections import deque
from pathlib import Path

import anyio
import anyio.from_thread
import httpx
import hypothesis
import numpy as np
import pytest
import respx

import voxvec as vv
from voxvec import _run
from voxvec.local.exchange import Request
from voxvec.local.fake_brain import FakeBrain
from voxvec.testing import FakeOpenAI

TINY = {"tiny": 8}

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")


def beside(name):
    """A module next to this file; tests are no package that could be imported from."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


canary = beside("canary")
KEY = canary.KEY


def pytest_configure(config):
    config.pluginmanager.register(canary, "canary")


@pytest.fixture(name="canary")
def _canary():
    """The key and the text that must show nowhere."""
    return canary


class VirtualClock:
    """Time in which waiting takes next to none; what happens elsewhere meanwhile still wakes the waiter."""

    LOOK = 0.002  # how long news are waited for before time jumps [s]

    def __init__(self):
        self.seconds, self.waits, self.lock = 1000.0, [], threading.Lock()

    def now(self, _=None):
        return self.seconds

    def pass_(self, start, seconds):
        with self.lock:
            self.waits.append(seconds)
            self.seconds = max(self.seconds, start + seconds)

    def wait(self, _, changed, seconds):
        start = self.seconds
        if not changed.wait(None if seconds == float("inf") else self.LOOK):
            self.pass_(start, seconds)

    async def await_(self, _, changed, seconds):
        start = self.seconds
        with anyio.move_on_after(None if seconds == float("inf") else self.LOOK):
            await changed.wait()
            return
        self.pass_(start, seconds)


@pytest.fixture
def clock(monkeypatch):
    """A clock in which no wait takes time, for every client of the test."""
    clock = VirtualClock()
    for name in ("now", "wait", "await_"):
        method = getattr(clock, name)
        monkeypatch.setattr(_run.Clock, name, lambda *args, method=method: method(*args))
    return clock


class Face:
    """An async client with the methods of its twin: each call is a task of one event loop in another thread."""

    def __init__(self, client, portal):
        self._client, self._portal = client, portal

    def __getattr__(self, name):
        value = getattr(self._client, name)
        return functools.partial(self._call, value) if callable(value) else value

    def __repr__(self):
        return repr(self._client)

    def _call(self, method, *args, **kwargs):
        return self._portal.call(functools.partial(method, *args, **kwargs))

    def stream(self, *args, **kwargs):
        parts = self._client.stream(*args, **kwargs)
        try:
            while True:
                try:
                    part = self._portal.call(anext, parts)
                except StopAsyncIteration:
                    return
                yield part
        finally:
            self._portal.call(parts.aclose)


class Twin:
    """Makes clients of one kind, all with the same face."""

    def __init__(self, kind, portal):
        self.kind, self.portal = kind, portal

    def face(self, client):
        return client if self.kind == "sync" else Face(client, self.portal)

    def embedder(self, model="text-embedding-3-small", **settings):
        if "client" not in settings:
            settings = {"api_key": KEY, **settings}
        return self.face((vv.Embedder if self.kind == "sync" else vv.AsyncEmbedder)(model, **settings))

    def transcriber(self, model="gpt-transcribe", **settings):
        if "client" not in settings:
            settings = {"api_key": KEY, **settings}
        return self.face((vv.Transcriber if self.kind == "sync" else vv.AsyncTranscriber)(model, **settings))

    def client(self, fake):
        return fake.client() if self.kind == "sync" else fake.async_client()


@pytest.fixture(params=["sync", "async"])
def twin(request):
    """Both twins, one after the other."""
    if request.param == "sync":
        yield Twin("sync", None)
        return
    with anyio.from_thread.start_blocking_portal() as portal:
        yield Twin("async", portal)


class Server:
    """OpenAI's endpoint for vectors as respx sees it: honest, but for what the test puts into ``script``.

    A script holds, for one request each: an exception, a response, a function that spoils the honest JSON, or None;
    a rule is asked for the same before, with the request's JSON.
    """

    def __init__(self, router):
        self.fake = FakeOpenAI(models=TINY)
        self.script = deque()
        self.rule = lambda body: None
        self.asked = []
        self.headers = []
        self.urls = []
        self.route = router.post(url__regex=r".*/embeddings(\?.*)?$").mock(side_effect=self._answer)

    def _answer(self, request):
        body = json.loads(request.content)
        self.asked.append(body)
        self.headers.append(dict(request.headers))
        self.urls.append(str(request.url))
        act = self.rule(body) or (self.script.popleft() if self.script else None)
        if isinstance(act, Exception):
            raise act
        if isinstance(act, httpx.Response):
            return act
        reply = self.fake(Request("POST", request.url.path, dict(request.headers), request.content))
        if act is None or reply.status != 200:
            return httpx.Response(reply.status, headers=dict(reply.headers), content=reply.body)
        spoilt = act(reply.json())
        return spoilt if isinstance(spoilt, httpx.Response) else httpx.Response(200, json=spoilt)

    @property
    def texts(self):
        """Every text that was asked for, in the order of the requests."""
        return [text for body in self.asked for text in body["input"]]


@functools.cache
def certificates():
    return ssl.create_default_context()


@pytest.fixture
def server(clock, monkeypatch):
    """A mocked OpenAI; retries wait in virtual time."""
    # Reading the certificates takes 20 ms for every client, and nothing is encrypted here.
    context = certificates()
    monkeypatch.setattr(ssl, "create_default_context", lambda *_, **__: context)
    with respx.mock(using="httpcore2", assert_all_called=False) as router:
        yield Server(router)


@pytest.fixture
def vectors_of():
    """The oracle: what the server answers for each text by itself."""
    brain = FakeBrain(TINY, lambda _: 1)

    def rows(texts, dims=None, model="text-embedding-3-small"):
        known = brain.models()[model].with_dims(dims)
        return [brain.embed(known, [text])[0][0].tolist() for text in texts]

    return rows


@pytest.fixture
def together():
    """Call some functions at the same time; their results, or what they raised, in order."""

    def run(*works):
        results = [None] * len(works)

        def one(at, work):
            try:
                results[at] = work()
            except Exception as error:  # noqa: BLE001 -- the result of the test
                results[at] = error

        threads = [threading.Thread(target=one, args=pair) for pair in enumerate(works)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive(), "a call hangs"
        return results

    return run


@pytest.fixture
def until():
    """Wait for something that another thread brings about."""

    def wait(condition, limit=30.0):
        end = time.monotonic() + limit
        while not condition():
            assert time.monotonic() < end, "it never happened"
            time.sleep(0.001)

    return wait


@pytest.fixture
def wav():
    """Build a WAV out of samples in [-1, 1], shape (n,) or (n, channels)."""

    def build(samples, rate=16_000, width=2):
        samples = np.atleast_2d(np.asarray(samples, dtype=np.float64).T).T
        file = io.BytesIO()
        with wave.open(file, "wb") as out:
            out.setnchannels(samples.shape[1])
            out.setsampwidth(width)
            out.setframerate(rate)
            scaled = np.rint(samples * (2 ** (8 * width - 1) - 1)).astype("<i4")
            out.writeframes(scaled.view("u1").reshape(*samples.shape, 4)[..., :width].tobytes())
        return file.getvalue()

    return build

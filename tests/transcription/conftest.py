"""Transcribers of both kinds behind one face."""

import contextlib
import threading

import httpx2
import openai
import pytest

from voxvec import models
from voxvec._flights import Flights
from voxvec.testing import FakeOpenAI
from voxvec.transcription import AsyncTranscriber, Transcriber

KEY = "sk-canary-7f3a9c5e1b"


class Twins:
    """Makes the sync or the async half of every pair, and closes what it made."""

    def __init__(self, twin, stack):
        self.portal, self._twin, self._stack = twin.portal, twin, stack
        sync = twin.kind == "sync"
        self.transcriber_class = Transcriber if sync else AsyncTranscriber
        self.openai_class, self.wrong_openai_class = (openai.OpenAI, openai.AsyncOpenAI)[:: 1 if sync else -1]
        self.azure_class = openai.AzureOpenAI if sync else openai.AsyncAzureOpenAI
        self._sync = sync

    def run(self, function, *args):
        return function(*args) if self._sync else self.portal.call(function, *args)

    def http_client(self, fake=None):
        if fake is None:
            # Without certificates, whose loading is what takes the time in making a client.
            settings = {"verify": False}
        else:
            settings = {"transport": fake.transport() if self._sync else fake.async_transport()}
        client = (httpx2.Client if self._sync else httpx2.AsyncClient)(**settings)
        self._stack.callback(self.run, client.close if self._sync else client.aclose)
        return client

    def openai_client(self, fake=None, cls=None, **settings):
        """A user's own client: its requests go to the fake, or else over the mocked network to OpenAI."""
        return (cls or self.openai_class)(**{"api_key": KEY, "http_client": self.http_client(fake), **settings})

    def transcriber(self, model="gpt-transcribe", *, fake=None, **settings):
        """A transcriber whose methods block; with neither client nor key it sends through `openai_client`."""
        if not settings.keys() & {"client", "api_key", "base_url"}:
            settings["client"] = self.openai_client(fake)
        client = self.transcriber_class(model, **settings)
        self._stack.callback(self.run, client.close)
        return self._twin.face(client)

    def bare(self, transcriber):
        """The transcriber behind the face."""
        return transcriber if self._sync else transcriber._client


@pytest.fixture
def twins(twin):
    with contextlib.ExitStack() as stack:
        yield Twins(twin, stack)


@pytest.fixture(autouse=True)
def _registry(monkeypatch):
    """Models of its own for every test, and nobody is told again that one goes away."""
    registry = models._Registry()
    registry._warned.update(models.names())
    monkeypatch.setattr(models, "_registry", registry)


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def waiting(monkeypatch):
    """Set as soon as a call waits for what another one is buying."""
    event, claim = threading.Event(), Flights.claim

    def spy(self, *args):
        made = claim(self, *args)
        if made.theirs:
            event.set()
        return made

    monkeypatch.setattr(Flights, "claim", spy)
    return event


@pytest.fixture
def fake():
    return FakeOpenAI()


@pytest.fixture
def key():
    return KEY

"""Fixtures for tests of programs that use voxvec; pytest finds them by itself.

Imports nothing heavy: pytest loads this file in every run of everyone who has voxvec installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from voxvec.testing import FakeOpenAI

__all__ = ["fake_openai"]


@pytest.fixture
def fake_openai(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeOpenAI]:
    """A fake OpenAI on a socket of this machine; every client made without a base URL talks to it."""
    from voxvec.testing import FakeOpenAI  # noqa: PLC0415 -- only the tests that use it pay for it

    fake = FakeOpenAI()
    with fake.serve() as base_url:
        monkeypatch.setenv("OPENAI_BASE_URL", base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-fake-key-of-a-fake-server")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield fake

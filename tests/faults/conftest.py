"""What the tests of the fault matrix share; each test names its case with ``@pytest.mark.case("F01")``."""

import pytest

from voxvec.testing import FakeOpenAI


class Ticking:
    """The virtual clock of the tests as a fake server takes it."""

    def __init__(self, clock):
        self._clock = clock

    def now(self):
        return self._clock.now()

    def sleep(self, seconds):
        self._clock.pass_(self._clock.now(), seconds)


@pytest.fixture
def timed(clock):
    """Makes fake servers that live in the same virtual time as their clients."""
    return lambda **settings: FakeOpenAI(tokens=len, clock=Ticking(clock), **settings)

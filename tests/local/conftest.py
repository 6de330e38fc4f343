import io
import wave

import numpy as np
import pytest

from voxvec import tokens
from voxvec.errors import ConfigError
from voxvec.local import weights


@pytest.fixture(autouse=True)
def _nothing_lent(monkeypatch):
    """Tokenizers are lent to the process; each test starts without any."""
    monkeypatch.setattr(tokens, "_lent", {})


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


@pytest.fixture
def installed():
    """The folder of the real weights."""
    try:
        return weights.find()
    except ConfigError:
        pytest.skip("the weights of all-MiniLM-L6-v2 are not installed: voxvec local install")

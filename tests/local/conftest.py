import pytest

from voxvec import tokens
from voxvec.errors import ConfigError
from voxvec.local import weights


@pytest.fixture(autouse=True)
def _nothing_lent(monkeypatch):
    """Tokenizers are lent to the process; each test starts without any."""
    monkeypatch.setattr(tokens, "_lent", {})


@pytest.fixture
def installed():
    """The folder of the real weights."""
    try:
        return weights.find()
    except ConfigError:
        pytest.skip("the weights of all-MiniLM-L6-v2 are not installed: voxvec local install")

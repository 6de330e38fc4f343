"""Run against an installed wheel without any extra: what must work works, what needs an extra says which one.

No test module: pytest is not installed where this runs.
"""

import subprocess
import sys
import warnings
from importlib import resources

import voxvec
from voxvec.testing import FakeOpenAI

warnings.simplefilter("error")

missing = [name for name in voxvec.__all__ if getattr(voxvec, name, None) is None]
assert not missing, missing
assert resources.files("voxvec").joinpath("py.typed").is_file()
assert resources.files("voxvec").joinpath("models.toml").is_file()

fake = FakeOpenAI()
with voxvec.Embedder("text-embedding-3-small", client=fake.client(), cache=voxvec.MemoryCache()) as embedder:
    vectors = embedder.embed(["kitten", "cat", "ledger"])
assert vectors.shape == (3, 1536)
assert len(voxvec.Index(vectors).search(vectors[0], k=2)) == 2

entry = subprocess.run([sys.executable, "-m", "voxvec", "demo"], capture_output=True, text=True, check=False)
assert entry.returncode == 2, entry
assert "pip install 'voxvec[cli]'" in entry.stderr, entry
assert "Traceback" not in entry.stderr, entry

print("1 passed, 0 failed")  # noqa: T201 -- a report

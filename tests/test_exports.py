"""What `import voxvec` offers, and how little it costs."""

import importlib
import os
import subprocess
import sys

import pytest

import voxvec

HEAVY = ("numpy", "openai", "httpx2", "pydantic", "anyio", "tenacity", "sqlite3", "asyncio", "av", "tiktoken")


def loaded_after(code):
    """Modules that a fresh interpreter holds after running some code."""
    run = subprocess.run(  # noqa: S603 -- ours
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")},
    )
    return set(run.stdout.split())


def test_all_names_are_sorted_and_listed_once():
    assert voxvec.__all__ == sorted(set(voxvec.__all__), key=lambda name: (name.lower() == name, name))


@pytest.mark.parametrize("name", voxvec.__all__)
def test_every_name_is_there_and_itself(name):
    value = getattr(voxvec, name)

    assert getattr(voxvec, name) is value
    assert value.__name__.rpartition(".")[2] == name
    assert name in dir(voxvec)


def test_a_star_import_brings_exactly_these():
    names = {}
    exec("from voxvec import *", names)  # noqa: S102 -- the only way to see what it brings

    assert set(names) - {"__builtins__"} == set(voxvec.__all__)


def test_an_unknown_name_is_pythons_own_error():
    with pytest.raises(AttributeError, match="no attribute 'Embeder'"):
        voxvec.Embeder  # noqa: B018 -- looking is the test
    with pytest.raises(ImportError):
        exec("from voxvec import Embeder")  # noqa: S102 -- as a user would


def test_every_error_is_exported():
    errors = importlib.import_module("voxvec.errors")
    public = {name for name in errors.__all__ if name.endswith(("Error", "Warning"))}

    assert public <= set(voxvec.__all__)


@pytest.mark.parametrize("room", ["caches", "embedding", "local", "similarity", "transcription"])
def test_every_room_is_as_lazy_and_as_honest(room):
    module = importlib.import_module(f"voxvec.{room}")

    assert list(module.__all__) == sorted(set(module.__all__), key=lambda name: (name.lower() == name, name))
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        module.no_such_name  # noqa: B018 -- as above


def test_importing_it_imports_nothing_heavy():
    loaded = loaded_after("import voxvec")

    assert not loaded.intersection(HEAVY)
    assert {name for name in loaded if name.startswith("voxvec")} == {"voxvec"}


@pytest.mark.parametrize("twin", ["Embedder", "AsyncEmbedder"])
def test_making_an_embedder_imports_neither_openai_nor_numpy(twin):
    loaded = loaded_after(f"import voxvec\nvoxvec.{twin}('text-embedding-3-small', cache='vectors.db')")

    assert not loaded.intersection({"openai", "numpy", "httpx2"})

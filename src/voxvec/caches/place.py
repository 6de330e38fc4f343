"""Where a cache file may stand, and which journal suits it there.

Texts can be confirmed, and guessed at, from what a cache holds. So a new file is readable by
its owner only, and a place where others could slip in a file of theirs is refused.
"""

from __future__ import annotations

import os
import re
import stat
import sys
import threading
from contextlib import suppress
from pathlib import Path

from voxvec.errors import CacheError, ConfigError

__all__ = ["SIDE_FILES", "file_system", "find", "identity", "is_local", "journal_mode_for", "move_aside", "prepare"]

Identity = tuple[int, int]
"""What makes a file itself, whatever its name: device and inode."""

SIDE_FILES = ("-journal", "-wal", "-shm")
"""How the names of what SQLite puts beside a file end."""

_NETWORK = {"9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "gfs2", "glusterfs", "gpfs", "lustre"} | {
    "ncpfs",
    "nfs",
    "nfs4",
    "ocfs2",
    "orangefs",
    "smb3",
    "smbfs",
    "vboxsf",
    "virtiofs",
}

# Closing a file drops every POSIX lock that this process has on it, those of SQLite's own handles
# included. So no thread may open the new file between its creation here and its closing.
_creating = threading.Lock()


def find(path: str | os.PathLike[str]) -> Path:
    """Make a path absolute, so that a later change of folder does not move it.

    Raises:
        ConfigError: It can be no file's path.
    """
    text = os.fspath(path)
    if not text or "\0" in text:
        raise ConfigError(f"the path of a cache file cannot be {text!r}")
    if text == ":memory:":
        raise ConfigError("a cache file cannot be ':memory:'; use MemoryCache() to keep rows in memory")
    return Path(text).expanduser().absolute()


def identity(path: Path) -> Identity | None:
    """Which file stands at the path; None if there is none."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def prepare(path: Path) -> None:
    """See to it that there is a file of ours at the path, an empty one if need be.

    Raises:
        CacheError: What stands there, or the folder, is nothing to trust; nothing was changed.
        OSError: It cannot be made for another reason.
    """
    with _creating:
        try:
            _make_folder(path.parent)
            _check_folder(path.parent)
            _make_file(path)
        except (PermissionError, NotADirectoryError, FileExistsError) as error:
            raise CacheError(f"no cache can be at {path}: {error.strerror}; choose another path") from None
    _check_file(path)


def _make_folder(folder: Path) -> None:
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(mode=0o700, exist_ok=True)


def _make_file(path: Path) -> None:
    if os.path.lexists(path):
        return
    # SQLite itself would take the umask, and give its side files the same mode.
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        os.close(os.open(path, flags, 0o600))
    except FileExistsError:
        return  # somebody else made it this very moment


def _check_folder(folder: Path) -> None:
    mode = folder.stat().st_mode
    if sys.platform != "win32" and mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise CacheError(
            f"the folder {folder} is open to everybody, who could put rows of theirs into a cache there; "
            "choose another path, or take the right away with: chmod o-w"
        )


def _check_file(path: Path) -> None:
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise CacheError(f"{path} is a symbolic link, which a cache does not follow; give the path of the file itself")
    if not stat.S_ISREG(found.st_mode):
        raise CacheError(f"{path} is no regular file; choose another path for the cache")
    if sys.platform != "win32" and found.st_uid != os.geteuid():
        raise CacheError(f"{path} belongs to another user (id {found.st_uid}); choose another path for the cache")
    if not os.access(path, os.R_OK):
        raise CacheError(f"{path} may not be read by this user; choose another path for the cache")
    for end in SIDE_FILES:
        _check_beside(path.with_name(path.name + end))


def _check_beside(path: Path) -> None:
    """SQLite writes into the file what it finds in a journal, whoever put that there."""
    with suppress(FileNotFoundError):
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or (sys.platform != "win32" and found.st_uid != os.geteuid()):
            raise CacheError(f"{path} was put there by another user or is no file; choose another path for the cache")


def move_aside(path: Path) -> Path:
    """Rename a damaged file, and what SQLite put beside it, to the first free ``<name>.damaged-N``."""
    number = 1
    while os.path.lexists(aside := path.with_name(f"{path.name}.damaged-{number}")):
        number += 1
    path.rename(aside)
    for end in SIDE_FILES:
        beside = path.with_name(path.name + end)
        if beside.exists():
            beside.rename(aside.with_name(aside.name + end))
    return aside


def file_system(path: Path, mountinfo: str) -> str | None:
    """Type of the file system a path is on.

    Args:
        path: Absolute path without symbolic links.
        mountinfo: Text of ``/proc/self/mountinfo``, see proc_pid_mountinfo(5).

    Returns:
        Such as ``"ext4"`` or ``"fuse.sshfs"``; None if no mount point leads to the path.
    """
    longest, kind = -1, None
    for line in mountinfo.splitlines():
        before, dash, after = line.partition(" - ")
        fields = before.split(" ")
        if not dash or len(fields) < 5:  # noqa: PLR2004 -- the mount point is the fifth field
            continue
        point = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), fields[4])
        # Of two mounts on one point the later hides the earlier.
        if len(point) >= longest and path.is_relative_to(point):
            longest, kind = len(point), after.split(" ")[0]
    return kind


def is_local(path: Path) -> bool | None:
    """Whether a file is on a disk of this machine; None if this system does not tell."""
    try:
        kind = file_system(path.resolve(), Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape"))
    except OSError:
        return None
    return None if kind is None else not (kind in _NETWORK or kind.startswith("fuse"))


def journal_mode_for(version: tuple[int, int, int]) -> tuple[str, str]:
    """Journal mode for new files.

    Args:
        version: SQLite as linked, ``sqlite3.sqlite_version_info``.

    Returns:
        ``"wal"`` or ``"truncate"``, and why.

    Source:
        "The WAL-Reset Bug" in https://sqlite.org/wal.html: 3.7.0 to 3.51.2 may corrupt a WAL file
        when two connections write and checkpoint at once; fixed in 3.51.3, 3.50.7 and 3.44.6.
    """
    name = ".".join(map(str, version))
    fixed = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)
    if fixed:
        return "wal", f"SQLite {name} has no known fault with write-ahead logs"
    return "truncate", f"SQLite {name} may corrupt files with a write-ahead log; 3.51.3, 3.50.7 and 3.44.6 do not"

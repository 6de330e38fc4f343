"""Build the wheel and the sdist twice, and let them stand only if they are the same and hold what they should.

    python .ci/build.py dist

Needs hatchling. The second build is of a copy of the tree elsewhere, with other times on its files.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Reproducible by everybody: the first moment that a ZIP file can hold, and one day.
EPOCH = "315619200"
IN_WHEEL = re.compile(
    r"voxvec/(?!(.*/)?(tests?|__pycache__)/)[a-z0-9_/-]+\.(py|typed|toml|json|wav|tiktoken\.gz)"
    r"|voxvec-[0-9a-z.]+\.dist-info/(METADATA|RECORD|WHEEL|entry_points\.txt|licenses/LICENSE)"
)
IN_SDIST = re.compile(r"voxvec-[0-9a-z.]+/(src/voxvec|tests|docs)/.+|voxvec-[0-9a-z.]+/[A-Za-z.-]+")


def build(tree: Path, into: Path) -> list[Path]:
    """Both artefacts, by name."""
    env = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH}
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(into)]
    subprocess.run(command, cwd=tree, env=env, check=True)  # noqa: S603 -- our own words
    return sorted(into.iterdir())


def copied(into: Path) -> Path:
    """A copy of the tree, of another age."""
    tree = into / "tree"
    skipped = shutil.ignore_patterns(".*", "dist", "build", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, tree, ignore=skipped)
    shutil.copy(ROOT / ".gitignore", tree)
    for path in tree.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    return tree


def strange(artefact: Path) -> list[str]:
    """What does not belong into it; above all a ``.pth`` file, which Python would run at every start."""
    if artefact.suffix == ".whl":
        with zipfile.ZipFile(artefact) as wheel:
            return [name for name in wheel.namelist() if not IN_WHEEL.fullmatch(name)]
    with tarfile.open(artefact) as sdist:
        members = sdist.getmembers()
    return [
        each.name
        for each in members
        if not each.isreg() or not IN_SDIST.fullmatch(each.name) or each.name.endswith((".pth", ".pyc"))
    ]


def main(into: Path) -> None:
    """Build, compare, look inside."""
    shutil.rmtree(into, ignore_errors=True)
    with tempfile.TemporaryDirectory() as work:
        first = build(ROOT, into)
        second = build(copied(Path(work)), Path(work, "again"))
        if [path.name for path in first] != [path.name for path in second]:
            sys.exit(f"two builds made different files: {first}, {second}")
        for one, other in zip(first, second, strict=True):
            if one.read_bytes() != other.read_bytes():
                sys.exit(f"two builds of {one.name} differ")
            if found := strange(one):
                sys.exit(f"{one.name} holds what does not belong there: {found}")
    if {path.suffix for path in first} != {".gz", ".whl"}:
        sys.exit(f"a wheel and an sdist were to be made, not {first}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())

"""Writes docs/why/promises.md: each promise, the cases it rests on, and the tests that prove them.

    python -m tests.faults.report            rewrites the page
    python -m tests.faults.report --check    fails if the page is not what it would write, or a case has no test

The tests are found by collecting them, so what stands on the page is what pytest would run.
"""

import io
import sys
import tomllib
from collections import defaultdict
from contextlib import redirect_stdout
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/why/promises.md"
HEAD = """\
# Promises, and the tests that keep them

What voxvec promises, and what proves it. Each promise rests on cases of the fault matrix below it; each case is
proven by the tests named beside it, for threads and for tasks where both exist. This page is written by
`python -m tests.faults.report` out of [`tests/faults/cases.toml`](../../tests/faults/cases.toml) and the tests' own
markers, and CI fails if it is not up to date.

One fault no client can see: a server that swaps two vectors behind right indexes.

## Promises
"""


class Collector:
    """Which tests carry which case; a parametrised test stands once."""

    def __init__(self):
        self.tests = defaultdict(dict)

    def pytest_collection_modifyitems(self, items):
        for item in items:
            cases = {case for mark in item.iter_markers("case") for case in mark.args}
            where = item.path.relative_to(ROOT).as_posix()
            for case in cases:
                self.tests[case][where, item.originalname] = None


def collect():
    files = [str(path) for path in (ROOT / "tests").rglob("test_*.py") if "mark.case(" in path.read_text("utf-8")]
    found = Collector()
    said = io.StringIO()
    with redirect_stdout(said):
        status = pytest.main(
            ["--collect-only", "-q", "-p", "no:cacheprovider", "-m", "", "--rootdir", str(ROOT), *files],
            plugins=[found],
        )
    if status:
        raise SystemExit(f"the tests cannot be collected:\n{said.getvalue()}")
    return found


def page(cases, found):
    left = cases.pop("left")
    promises = cases.pop("promises")
    missing = {case: left.get(case, left.get(group)) for group, named in cases.items() for case in named}
    proven = [case for case in missing if found.tests.get(case)]
    waiting = [case for case, what in missing.items() if what and case not in proven]
    tests = {test for named in found.tests.values() for test in named}
    summary = (
        f"Of {len(missing)} cases {len(proven)} are proven, by {len(tests)} tests; {len(waiting)} wait for an ability "
        "that voxvec does not have yet."
    )
    lines = [
        HEAD,
        summary,
        "",
        "| | promise | cases |",
        "|---|---|---|",
    ]
    for name, (text, rests_on) in promises.items():
        shown = " ".join(f"[{case}](#{case.lower()})" for case in rests_on.split()) or "this page"
        lines.append(f"| {name} | {text} | {shown} |")
    lines += ["", "## Cases"]
    for group, named in cases.items():
        lines += ["", f"### {group.capitalize()}", "", "| case | what must come of it | proven by |", "|---|---|---|"]
        for case, text in named.items():
            proofs = [
                f"[`{name}`](../../{where})" for where, name in sorted(found.tests.get(case, {}), key=lambda t: t[::-1])
            ]
            proof = "<br>".join(proofs) or f"waits for {missing[case]}"
            lines.append(f'| <a id="{case.lower()}"></a>{case} | {text} | {proof} |')
    return "\n".join(lines) + "\n"


def main():
    cases = tomllib.loads((ROOT / "tests/faults/cases.toml").read_text("utf-8"))
    left = cases["left"]
    known = {case: group for group, named in cases.items() if group not in {"left", "promises"} for case in named}
    found = collect()
    strangers = sorted(set(found.tests) - set(known))
    unproven = [case for case, group in known.items() if not ({case, group} & set(left) or found.tests.get(case))]
    text = page(cases, found)
    if strangers or unproven:
        sys.stderr.write(f"cases without a test: {unproven}\nmarkers without a case: {strangers}\n")
    if "--check" in sys.argv[1:]:
        stale = not PAGE.exists() or PAGE.read_text("utf-8") != text
        if stale:
            sys.stderr.write(f"{PAGE.name} is out of date: run python -m tests.faults.report\n")
        return int(bool(strangers or unproven or stale))
    PAGE.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

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


APART = {"left", "promises", "rules"}  # of cases.toml: what holds no cases
FIGURES = """\
`python -m tests.faults.figures` measures the quick ones, `--all` the slow ones too; each prints its number beside the
bound, and CI fails if one is broken.
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


def proofs(found, name):
    tests = sorted(found.tests.get(name, {}), key=lambda test: test[::-1])
    return [f"[`{test}`](../../{where})" for where, test in tests]


def table(head, rows):
    width = head.count("|") - 1
    return [head, "|---" * width + "|", *rows, ""]


def page(matrix, found):
    from tests.faults import figures  # noqa: PLC0415 -- pytest wants to see voxvec imported first

    groups = {group: named for group, named in matrix.items() if group not in APART}
    left, promises, rules = matrix["left"], matrix["promises"], matrix["rules"]
    missing = {case: left.get(case, left.get(group)) for group, named in groups.items() for case in named}
    proven = [case for case in missing if found.tests.get(case)]
    tests = {test for case in proven for test in found.tests[case]}
    lines = [HEAD]
    lines += [
        (
            f"Of {len(missing)} cases {len(proven)} are proven, by {len(tests)} tests; {len(missing) - len(proven)} "
            "wait for an ability that voxvec does not have yet."
        ),
        "",
    ]
    rows = []
    for name, (text, rests_on) in promises.items():
        cases = " ".join(f"[{case}](#{case.lower()})" for case in rests_on.split()) or "this page"
        rows.append(f"| {name} | {text} | {'<br>'.join([cases, *proofs(found, name)])} |")
    lines += table("| | promise | cases, and tests of its own |", rows)
    lines += ["## Figures", "", FIGURES]
    lines += table("| figure | says | may be |", [bound(one) for one in figures.FIGURES.values()])
    lines.append("## Cases\n")
    for group, named in groups.items():
        rows = [
            f'| <a id="{case.lower()}"></a>{case} | {text} | {"<br>".join(proofs(found, case)) or missing[case]} |'
            for case, text in named.items()
        ]
        lines += [f"### {group.capitalize()}\n", *table("| case | what must come of it | proven by |", rows)]
    lines.append("## Rules of security\n")
    rows = [f"| {rule} | {text} | {'<br>'.join(proofs(found, rule)) or left[rule]} |" for rule, text in rules.items()]
    lines += table("| rule | | proven by |", rows)
    return "\n".join(lines)


def bound(one):
    return f"| `{one.name}` | {one.says} | at most {one.most:g} {one.unit} |".replace("  ", " ")


def main():
    matrix = tomllib.loads((ROOT / "tests/faults/cases.toml").read_text("utf-8"))
    left = matrix["left"]
    cases = {case: group for group, named in matrix.items() if group not in APART for case in named}
    known = {*cases, *matrix["promises"], *matrix["rules"]}
    found = collect()
    strangers = sorted(set(found.tests) - known)
    needed = {**cases, **dict.fromkeys(matrix["rules"], "rules")}
    unproven = [case for case, group in needed.items() if not ({case, group} & set(left) or found.tests.get(case))]
    text = page(matrix, found)
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

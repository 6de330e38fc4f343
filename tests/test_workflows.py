"""How we build, test and release: what workflows, locks and settings promise to whoever installs voxvec."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / ".github").rglob("*.yml")) + sorted((ROOT / ".ci").glob("*"))
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
# Run by the index's own publisher and GitHub only: a scanner with a key to our releases is how others were taken over.
MAY_PUBLISH = {"actions/download-artifact", "pypa/gh-action-pypi-publish"}

pytestmark = pytest.mark.skipif(not WORKFLOWS, reason="runs in the source tree only")


def jobs(workflow):
    """The text of each job, by name; the files keep to two blanks a level, which spares us a parser."""
    text = workflow.read_text("utf-8").split("\njobs:\n")[1]
    parts = re.split(r"^  ([a-z]+):\n", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def used(text):
    return re.findall(r"\buses:\s*(\S+)", text)


def pinned(name):
    """Version by package, each with its hashes, as a lock has them."""
    text = (ROOT / ".ci" / name).read_text("utf-8")
    entries = re.findall(r"^(\S+?)(?:\[\S*\])?==(\S+)([^\n]*)\n((?:    \S.*\n)+)", text, flags=re.MULTILINE)
    assert len(entries) == len(re.findall(r"^[^\s#]", text, flags=re.MULTILINE))
    return {(entry[0], entry[1]): re.findall(r"--hash=sha256:[0-9a-f]{64}\b", entry[3]) for entry in entries}


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
class TestWorkflow:
    @pytest.mark.case("S19")
    def test_every_action_is_pinned_by_its_commit(self, workflow):
        for action in used(workflow.read_text("utf-8")):
            assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", action), action

    def test_a_pin_says_which_version_it_is(self, workflow):
        lines = [line for line in workflow.read_text("utf-8").splitlines() if "uses:" in line]
        assert all(re.search(r" # v\d+\.\d+\.\d+$", line) for line in lines)

    @pytest.mark.case("S19")
    def test_nothing_is_allowed_but_what_a_job_asks_for(self, workflow):
        text = workflow.read_text("utf-8")
        assert "\npermissions: {}\n" in text
        for name, job in jobs(workflow).items():
            asked = dict(re.findall(r"^      ([a-z-]+): (read|write)$", job, flags=re.MULTILINE))
            assert asked == ({"id-token": "write"} if name == "publish" else {"contents": "read"}), name

    def test_a_checkout_leaves_no_credentials_behind(self, workflow):
        text = workflow.read_text("utf-8")
        assert text.count("actions/checkout@") == text.count("persist-credentials: false")

    def test_no_workflow_holds_a_secret_or_runs_the_code_of_strangers_with_rights(self, workflow):
        text = workflow.read_text("utf-8")
        for word in ("secrets.", "pull_request_target", "workflow_run", "write-all", "self-hosted"):
            assert word not in text

    def test_no_step_runs_words_that_a_stranger_can_choose(self, workflow):
        runs = re.findall(r"run: (?:\|\n((?: {10}.*\n)+)|(.*))", workflow.read_text("utf-8"))
        for expression in re.findall(r"\$\{\{ *(\S+)", "".join(map("".join, runs))):
            assert expression.startswith("matrix."), expression

    def test_no_line_looks_to_yaml_like_something_else(self, workflow):
        plain = r"^ *(?:- )?[\w-]+: ([^\"'|\[{\n].*)$"
        for value in re.findall(plain, workflow.read_text("utf-8"), flags=re.MULTILINE):
            assert ": " not in value, value

    def test_every_job_ends(self, workflow):
        assert all("timeout-minutes:" in job for job in jobs(workflow).values())


@pytest.mark.case("S19")
def test_one_job_publishes_and_it_builds_nothing():
    publishing = [
        (workflow.stem, name)
        for workflow in WORKFLOWS
        for name, job in jobs(workflow).items()
        if "id-token" in job or "gh-action-pypi-publish" in job
    ]
    assert publishing == [("release", "publish")]
    job = jobs(ROOT / ".github/workflows/release.yml")["publish"]
    assert {action.partition("@")[0] for action in used(job)} == MAY_PUBLISH
    assert "run:" not in job
    assert "\n    environment: release\n" in job
    assert "\n    needs: build\n" in job
    assert "attestations: true" in job


@pytest.mark.case("S20", "S22")
def test_what_is_built_for_a_release_is_built_by_pinned_tools_twice():
    job = jobs(ROOT / ".github/workflows/release.yml")["build"]

    assert "--require-hashes --only-binary :all: -r .ci/tools.txt" in job
    assert "python .ci/build.py dist" in job


def test_pip_in_a_workflow_installs_by_hash_or_what_was_just_built():
    for workflow in WORKFLOWS:
        for name, job in jobs(workflow).items():
            for line in re.findall(r"\bpip install .*", job):
                if (workflow.stem, name) != ("ci", "bare") and not line.startswith("pip install --resolution"):
                    assert "--require-hashes" in line or "--no-deps" in line or "--group test" in line, line


@pytest.mark.case("S20")
@pytest.mark.parametrize("lock", ["requirements.txt", "tools.txt"])
def test_every_package_of_a_lock_has_one_version_and_its_hashes(lock):
    assert all(pinned(lock).values())


@pytest.mark.case("S20", "S21")
@pytest.mark.parametrize(
    ("lock", "groups", "extras"), [("requirements.txt", ["test", "lint"], True), ("tools.txt", ["tools"], False)]
)
def test_a_lock_covers_everything_that_is_asked_for(project, lock, groups, extras):
    locked = pinned(lock)
    wanted = [line for group in groups for line in project["dependency-groups"][group]]
    if extras:
        optional = project["project"]["optional-dependencies"].values()
        wanted += project["project"]["dependencies"] + [line for extra in optional for line in extra]

    for requirement in map(Requirement, wanted):
        if requirement.name == "voxvec" or not (requirement.marker is None or requirement.marker.evaluate()):
            continue
        versions = [version for name, version in locked if name == requirement.name]
        assert any(requirement.specifier.contains(version) for version in versions), requirement


def test_no_file_names_a_registry():
    for path in FILES:
        for host in ("--index-url", "--extra-index-url", "--find-links", "files.pythonhosted"):
            assert host not in path.read_text("utf-8"), path


@pytest.mark.case("S20")
def test_new_versions_wait_for_a_week():
    assert (ROOT / ".github/dependabot.yml").read_text("utf-8").count("default-days: 7") == 3
    assert "--exclude-newer" in (ROOT / ".ci/lock").read_text("utf-8")


@pytest.mark.case("S23")
def test_a_hole_can_be_reported_in_private_and_is_answered_within_a_week():
    text = (ROOT / ".github/SECURITY.md").read_text("utf-8")

    for words in ("Report a vulnerability", "within 7 days", "Supported versions", "docs/why/security.md"):
        assert words in text


@pytest.mark.case("S8", "S11", "S18")
def test_a_user_gets_few_packages_and_none_with_a_known_hole(project):
    names = {Requirement(line).name for line in project["project"]["dependencies"]}
    optional = project["project"]["optional-dependencies"].values()

    core = {"anyio", "jiter", "numpy", "openai", "platformdirs", "pybase64", "pydantic", "tenacity"}
    assert names == core
    # Whoever can write into its folder runs code (CVE-2025-69872), and nobody looks after it any more.
    assert "diskcache" not in names | {Requirement(line).name for extra in optional for line in extra}
    assert "diskcache" not in {name for name, _ in pinned("requirements.txt")}

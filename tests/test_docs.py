"""Every Python block of the README and the docs runs, page by page, against an honest fake server."""

import inspect
import os
import re
from pathlib import Path

import openai
import pytest
from markdown_it import MarkdownIt
from tests import make_reference

from voxvec import local, models
from voxvec.errors import ConfigError
from voxvec.local import weights

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
KINDS = {"how-to", "reference", "why"}


def blocks(page):
    tokens = MarkdownIt("commonmark").parse(page.read_text("utf-8"))
    return [token for token in tokens if token.type == "fence" and token.info == "python"]


def weights_are_missing():
    try:
        weights.find()
    except ConfigError:
        return True
    return False


def offline_backend_is_missing():
    try:
        import pocketsphinx  # noqa: F401, PLC0415 -- an optional extra
    except ImportError:
        return True
    return weights_are_missing()


@pytest.fixture
def reader(tmp_path, monkeypatch, fake_openai):
    """A reader's folder, with a recording in it and a server behind the environment."""
    (tmp_path / "interview.wav").write_bytes(local.demo_recording().audio)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models, "_registry", models._Registry())
    made, make = [], openai.OpenAI.__init__

    def note(client, *args, **options):
        make(client, *args, **options)
        made.append(client)

    monkeypatch.setattr(openai.OpenAI, "__init__", note)
    yield fake_openai
    for client in made:  # the pages leave it to Python to close them, at a time of its own
        client.close()


WITH_CODE = [
    pytest.param(page, marks=[pytest.mark.slow] if "demo_recording()" in page.read_text("utf-8") else [])
    for page in PAGES
    if blocks(page)
]  # hearing the recording takes ten seconds


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page_runs_from_top_to_bottom(page, reader, monkeypatch):
    code = "".join(block.content for block in blocks(page))
    if "local.client()" in code and offline_backend_is_missing():
        pytest.skip("needs the extra [local] and `voxvec local install`")
    names = {"__name__": "docs"}

    for block in blocks(page):
        source = "\n" * (block.map[0] + 1) + block.content  # so that a traceback names the page's line
        exec(compile(source, str(page), "exec"), names)  # noqa: S102 -- our own docs

    for name, value in list(names.items()):
        if name.startswith("test_") and inspect.isfunction(value):
            value(reader)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8"))

    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_every_page_is_a_tutorial_a_how_to_a_reference_or_a_why():
    pages = [page.relative_to(ROOT / "docs") for page in ROOT.glob("docs/**/*.md")]

    assert [page for page in pages if page != Path("tutorial.md") and page.parts[0] not in KINDS] == []


def test_the_models_page_says_what_is_known():
    page = ROOT / "docs" / "reference" / "models.md"

    assert page.read_text("utf-8") == make_reference.models_page(), "run: python -m tests.make_reference"


def options_by_verb(page):
    """Options per section; how the help is laid out around them is typer's business, and changes."""
    return {
        section.partition("\n")[0]: set(re.findall(r"--[a-z][a-z-]+", section)) for section in page.split("\n## ")[1:]
    }


def test_the_command_line_page_names_every_verb_and_option():
    pytest.importorskip("typer")
    page = ROOT / "docs" / "reference" / "cli.md"

    written, true = options_by_verb(page.read_text("utf-8")), options_by_verb(make_reference.cli_page())
    assert written == true, "run: python -m tests.make_reference"


def test_a_decision_note_fits_on_a_screen():
    notes = sorted(ROOT.glob("docs/why/decisions/*.md"))

    assert notes
    assert {note.name: n for note in notes if (n := len(note.read_text("utf-8").splitlines())) > 25} == {}


def test_the_readme_names_no_package_registry_host():
    hosts = re.findall(r"https?://([^/\s)]+)", "".join(page.read_text("utf-8") for page in PAGES))

    assert [host for host in hosts if "pypi" in host or "pythonhosted" in host] == []


def test_the_key_of_the_fake_server_is_not_a_real_one(fake_openai):
    assert os.environ["OPENAI_BASE_URL"].startswith("http://127.0.0.1:")

import json
import re
import sqlite3
import sys
import tomllib
from pathlib import Path

import pytest

import voxvec as vv
from voxvec.cli import doctor as room
from voxvec.local import weights

ROOT = Path(__file__).parents[2]


@pytest.fixture
def kept(server, run):
    """Three rows in the cache file."""
    run("embed", "-", stdin="a\nb\nc\n")


# -- cache


@pytest.mark.usefixtures("kept")
def test_stats_tell_what_the_cache_file_holds(run, answer, tmp_path):
    found = answer("cache", "stats")

    assert (found["rows"], found["path"]) == (3, str(tmp_path / "cache" / "cache.db"))
    assert found["bytes"] > 0
    assert "rows     3" in run("cache", "stats").stdout


@pytest.mark.usefixtures("kept")
def test_clear_forgets_everything(run, answer):
    assert run("cache", "clear").stdout == "3 rows removed\n"
    assert run("cache", "clear").stdout == "0 rows removed\n"
    assert answer("cache", "clear") == {"removed": 0}
    assert answer("cache", "stats")["rows"] == 0


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize(
    ("limits", "removed"),
    [
        (["--max-bytes", "0"], 3),
        (["--max-bytes", "1.5 GiB"], 0),
        (["--max-bytes", "500MB", "--older-than", "30d"], 0),
        (["--older-than", "2w"], 0),
    ],
)
def test_prune_keeps_to_its_limits(answer, limits, removed):
    assert answer("cache", "prune", *limits) == {"removed": removed}


@pytest.mark.parametrize("limits", [[], ["--max-bytes", "many"], ["--older-than", "5 apples"], ["--max-bytes", "-1"]])
def test_a_limit_that_makes_no_sense_is_wrong_usage(run, limits):
    assert run("cache", "prune", *limits).exit_code == 2


@pytest.mark.skipif(sys.platform == "win32", reason="rights of folders are another matter there")
def test_a_cache_that_cannot_be_trusted_is_one_line(run, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    result = run("cache", "stats")

    assert result.exit_code == 1
    assert "open to everybody" in result.stderr
    assert "open to everybody" not in run("doctor").stdout


# -- local


def test_a_cache_file_that_is_none_can_be_gone_round(server, run, home, tmp_path):
    (tmp_path / "cache").mkdir(mode=0o700)
    (tmp_path / "cache" / "cache.db").write_bytes(b"precious " * 200)
    (home / "t.txt").write_text("kitten\n")

    assert "; use --no-cache, or another folder by VOXVEC_CACHE_DIR\n" in run("embed", "t.txt").stderr
    assert "; use another folder by VOXVEC_CACHE_DIR\n" in run("cache", "stats").stderr
    assert run("embed", "t.txt", "--no-cache").exit_code == 0


def test_install_prints_the_folder_and_says_what_it_does(run, answer, monkeypatch, tmp_path):
    def install(say):
        say("Fetching.")
        return tmp_path

    monkeypatch.setattr(vv.local, "install", install)

    assert (run("local", "install").stdout, run("local", "install").stderr) == (f"{tmp_path}\n", "voxvec: Fetching.\n")
    assert answer("local", "install") == {"folder": str(tmp_path)}


# -- models


def test_every_model_is_listed(run, answer):
    listed = run("models").stdout

    assert all(name in listed for name in vv.models.names())
    assert [model["name"] for model in answer("models")["models"]] == vv.models.names()


@pytest.mark.parametrize("name", vv.models.names())
def test_everything_known_about_a_model_is_shown_with_its_sources(run, answer, name):
    shown = run("models", name).stdout

    assert shown.startswith("name ")
    assert all(fact.source in shown for fact in vv.models.find(name).facts)
    assert answer("models", name)["name"] == name


@pytest.mark.parametrize(
    ("name", "hint"), [("text-embeding-3-small", "text-embedding-3-small"), ("zzzzzz", "see: voxvec models")]
)
def test_an_unknown_model_is_told_with_what_is_near(run, name, hint):
    result = run("models", name)

    assert result.exit_code == 1
    assert hint in result.stderr


# -- doctor


def test_doctor_tells_versions_settings_and_what_is_missing(run):
    shown = run("doctor").stdout

    assert f"{sys.version_info.major}.{sys.version_info.minor}" in shown
    assert sqlite3.sqlite_version in shown
    assert "OPENAI_API_KEY is not set" in shown
    assert "api.openai.com" in shown
    assert "voxvec local install" in shown
    assert "once there is a cache file" in shown


def test_doctor_never_shows_the_key_nor_the_path_of_the_url(run, answer, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789abcdef")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://example.org:8443/secret-path/v1")
    found = answer("doctor")

    assert (found["key"], found["host"]) == (True, "example.org:8443")
    assert "secret-path" not in run("doctor").output


@pytest.mark.parametrize(
    ("url", "server"), [("http://localhost:8000/v1", "localhost:8000"), ("nonsense", "that server")]
)
def test_an_address_without_a_key_is_told_by_doctor_and_by_what_answers(keyless, run, monkeypatch, url, server):
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    line = (
        "OPENAI_BASE_URL is set but OPENAI_API_KEY is not: set it (to anything, if the server needs none) "
        f"to use {server}; the keyless backend answers"
    )

    assert f"voxvec: {line}: all-MiniLM-L6-v2 (English only)\n" in run("embed", "-", stdin="kitten").stderr
    assert line in run("doctor").stdout


def test_machines_read_keys_without_blanks(answer, tmp_path):
    found = answer("doctor")

    assert found["cache_folder"] == str(tmp_path / "cache")
    assert not any(" " in key for key in found)


def test_doctor_goes_on_past_what_is_broken(run, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "nonsense")
    result = run("doctor")

    assert result.exit_code == 0
    assert "must look like" in result.stdout
    assert "[audio]" in result.stdout


@pytest.mark.usefixtures("kept")
def test_doctor_tells_the_journal_mode_of_the_file_and_why(answer):
    assert sqlite3.sqlite_version in answer("doctor")["journal"]


def test_doctor_finds_the_weights(answer, monkeypatch, tmp_path):
    monkeypatch.setattr(weights, "find", lambda: tmp_path)

    assert answer("doctor")["weights"] == str(tmp_path)


def test_doctor_names_the_line_that_installs_a_missing_extra(run, answer, monkeypatch):
    monkeypatch.setattr(room, "installed", lambda package: None if package == "av" else "1")

    assert "pip install 'voxvec[audio]'" in run("doctor").stdout
    assert answer("doctor")["extras"]["audio"] == {"installed": False, "missing": ["av"]}
    assert json.dumps(answer("doctor")["extras"]["tokens"]) == '{"installed": true, "missing": []}'


def test_doctor_knows_every_extra():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    names = {
        extra: {requirement.split(";")[0].rstrip("0123456789.").rstrip("<>=~ ") for requirement in requirements}
        for extra, requirements in declared.items()
        if extra != "all"
    }

    assert {extra: set(packages) for extra, packages in room.EXTRAS.items()} == names


def test_the_doctor_sells_nobody_what_nothing_uses(run, monkeypatch):
    monkeypatch.setattr("voxvec.cli.doctor.installed", lambda _: None)
    shown = run("doctor").stdout

    assert "[redis]       reserved: nothing uses it yet" in shown
    assert "pip install 'voxvec[audio]'" in shown
    assert "pip install 'voxvec[redis]'" not in shown
    readme = (ROOT / "README.md").read_text("utf-8").splitlines()
    [listed] = [line for line in readme if "are reserved: nothing" in line]
    assert set(re.findall("`([a-z]+)`", listed)) - {"all"} == room._RESERVED

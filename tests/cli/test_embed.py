import json
import os
import sys
import threading

import numpy as np
import pytest

import voxvec as vv
from voxvec.errors import InputError
from voxvec.testing import FakeOpenAI


@pytest.fixture
def texts(home):
    file = home / "texts.txt"
    file.write_text("\ufeffkitten\nFührungskräfte\u2028und mehr\r\nkitten\n", "utf-8")
    return file


TEXTS = ["kitten", "Führungskräfte\u2028und mehr", "kitten"]


def oracle(dims=1536):
    with FakeOpenAI().client() as client:
        embedder = vv.Embedder("text-embedding-3-small", client=client, dimensions=dims)
        return embedder.embed(TEXTS).array


def test_vectors_of_the_lines_go_to_stdout_as_json_lines(server, run, texts):
    result = run("embed", texts)
    rows = [json.loads(line) for line in result.stdout.split("\n")[:-1]]

    assert [row["text"] for row in rows] == TEXTS
    assert np.array_equal(np.array([row["vector"] for row in rows], np.float32), oracle())
    assert "3 vectors of 1536 dims by text-embedding-3-small; 1 request" in result.stderr


def test_a_second_run_asks_nothing(server, run, texts):
    run("embed", texts)
    result = run("embed", texts)

    assert server.asked == 1
    assert "0 requests" in result.stderr


def test_npz_holds_embeddings_that_load(server, run, texts, home):
    assert run("embed", texts, "--dims", 64, "-o", "v.npz").stdout == ""
    found = vv.Embeddings.load(home / "v.npz")

    assert found.model == "text-embedding-3-small"
    assert np.array_equal(found.array, oracle(64))


def test_parquet_holds_texts_and_vectors(server, run, texts, home):
    parquet = pytest.importorskip("pyarrow.parquet")
    assert run("embed", texts, "--dims", 64, "-o", "v.parquet").exit_code == 0
    table = parquet.read_table(home / "v.parquet")

    assert table["text"].to_pylist() == TEXTS
    assert np.array_equal(np.stack(table["vector"].to_numpy()), oracle(64))
    assert table.schema.metadata[b"model"] == b"text-embedding-3-small"


def test_jsonl_holds_texts_and_vectors(server, run, texts, home):
    assert run("embed", texts, "--dims", 8, "-o", "v.jsonl").exit_code == 0
    rows = [json.loads(line) for line in (home / "v.jsonl").read_text("utf-8").split("\n")[:-1]]

    assert [row["text"] for row in rows] == TEXTS
    assert np.array_equal(np.array([row["vector"] for row in rows], np.float32), oracle(8))


def test_texts_come_from_stdin_too(server, answer):
    found = answer("embed", "-", "--dims", 8, stdin="kitten\ncat")

    assert (found["texts"], found["dims"], len(found["vectors"])) == (2, 8, 2)


def test_json_says_where_vectors_were_written_instead_of_holding_them(server, answer, texts):
    found = answer("embed", texts, "-o", "v.npz")

    assert found["output"] == "v.npz"
    assert "vectors" not in found


def test_no_text_gives_no_vector_and_no_request(server, answer):
    found = answer("embed", "-", stdin="")

    assert (found["texts"], found["dims"], found["vectors"], server.asked) == (0, 1536, [], 0)


@pytest.mark.parametrize("suffix", ["npz", "jsonl", "parquet"])
def test_no_text_makes_an_empty_file(server, run, home, suffix):
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    assert run("embed", "-", "-o", f"v.{suffix}", stdin="").exit_code == 0
    assert (home / f"v.{suffix}").exists()


def test_a_blank_line_is_refused_by_its_place(server, run, home):
    (home / "gap.txt").write_text("kitten\n\ncat\n")
    result = run("embed", "gap.txt")

    assert (result.exit_code, server.asked) == (1, 0)
    assert result.stderr == (
        "voxvec: gap.txt:2 is blank; remove it, or pass --skip-blank to leave such lines out. Nothing was sent\n"
    )


def test_many_blank_lines_are_counted_not_listed(server, run):
    result = run("embed", "-", stdin="a\n" + " \n" * 9)

    assert "-:2, -:3, -:4, -:5, -:6 and 4 more are blank; remove them" in result.stderr


def test_blank_lines_are_left_out_on_demand(server, answer, home):
    (home / "gap.txt").write_text("kitten\n\n \t\ncat\n")

    assert answer("embed", "gap.txt", "--skip-blank", "--dims", 8)["texts"] == 2


def test_a_line_that_is_too_long_is_named_without_advice_for_programs(server, run, home):
    pytest.importorskip("tiktoken")
    (home / "long.txt").write_text("cat\n" + "cat " * 9_000 + "\n")
    result = run("embed", "long.txt")

    assert (result.exit_code, server.asked) == (1, 0)
    assert "long.txt:2 has " in result.stderr
    assert result.stderr.endswith("shorten it. Nothing was sent\n")
    assert not any(word in result.stderr for word in ("text 1", "on_long", "on_error"))


def test_what_is_wrong_with_no_line_in_particular_stays_as_it_is(server, run, texts, monkeypatch):
    def refuse(*_, **__):
        raise InputError("nothing can be done")

    monkeypatch.setattr(vv.Embedder, "embed", refuse)

    assert run("embed", texts).stderr == "voxvec: nothing can be done\n"


def test_one_vector_is_not_several(server, run):
    result = run("embed", "-", stdin="kitten")

    assert "voxvec: 1 vector of 1536 dims by text-embedding-3-small; 1 request, " in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other pipes")
def test_texts_come_through_a_pipe_with_a_name_too(server, answer, home):
    os.mkfifo(home / "pipe")
    writer = threading.Thread(target=(home / "pipe").write_text, args=("kitten\ncat\n",))
    writer.start()

    assert answer("embed", "pipe", "--dims", 8)["texts"] == 2
    writer.join()


@pytest.mark.case("J06")
def test_an_output_whose_name_is_too_long_is_refused_before_anything_is_sent(server, run, texts):
    result = run("embed", texts, "-o", "v" * 300 + ".npz")

    assert (result.exit_code, server.asked) == (1, 0)
    assert "vvv.npz cannot be written" in result.stderr


@pytest.mark.case("J06")
def test_an_output_that_fails_is_named_as_the_user_named_it(server, run, texts, monkeypatch):
    def full(_, path):
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as disk:
        disk.setattr(vv.Embeddings, "save", full)
        result = run("embed", texts, "-o", "v.npz")

    assert result.exit_code == 1
    assert "voxvec: v.npz: No space left on device\n" in result.stderr
    assert server.asked == 1
    assert run("embed", texts, "-o", "v.npz").exit_code == 0
    assert server.asked == 1  # what was bought for the file that failed is in the cache


@pytest.mark.case("J05")
def test_an_output_that_was_there_survives_a_failure(server, run, texts, home):
    (home / "v.npz").write_bytes(b"precious")
    server.fail_next(401)

    assert run("embed", texts, "-o", "v.npz").exit_code == 1
    assert (home / "v.npz").read_bytes() == b"precious"
    assert {file.name for file in home.iterdir()} == {"v.npz", "texts.txt"}


def test_an_output_keeps_its_rights(server, run, texts, home):
    (home / "v.npz").write_bytes(b"old")
    (home / "v.npz").chmod(0o640)
    run("embed", texts, "-o", "v.npz")

    assert (home / "v.npz").stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no folder like this")
def test_an_output_that_is_no_regular_file_is_left_alone(server, run, texts, home):
    (home / "v.npz").mkdir()
    result = run("embed", texts, "-o", "v.npz")

    assert (result.exit_code, server.asked) == (1, 0)
    assert "no regular file" in result.stderr


@pytest.mark.case("J06")
def test_a_folder_that_may_not_be_written_is_refused(server, run, texts, monkeypatch):
    monkeypatch.setattr("os.access", lambda _, mode: mode == os.R_OK)
    result = run("embed", texts, "-o", "v.npz")

    assert (result.exit_code, server.asked) == (1, 0)
    assert "nothing may be written" in result.stderr


def test_parquet_without_its_extra_names_the_extra(server, run, texts, monkeypatch):
    monkeypatch.setattr("voxvec.cli.embed.find_spec", lambda _: None)
    result = run("embed", texts, "-o", "v.parquet")

    assert (result.exit_code, server.asked) == (1, 0)
    assert "voxvec[arrow]" in result.stderr


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        pytest.param(["texts.txt", "-o", "v.csv"], "end the name", id="unknown-suffix"),
        pytest.param(["t.jsonl", "-o", "t.jsonl"], "texts themselves", id="onto-itself"),
        pytest.param(["texts.txt", "--dims", "0"], "--dims", id="no-dims"),
    ],
)
def test_what_makes_no_sense_is_wrong_usage(server, run, texts, args, reason):
    result = run("embed", *args)

    assert result.exit_code == 2
    assert reason in result.stderr


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"RIFF\x24\x00\x00\x00WAVEfmt ", "is a recording", id="recording"),
        pytest.param("text".encode("utf-16"), "neither text", id="utf-16"),
        pytest.param(b"\xff\xfe\x01", "neither text", id="binary"),
    ],
)
def test_what_is_no_text_is_refused(server, run, home, data, reason):
    (home / "x").write_bytes(data)
    result = run("embed", "x")

    assert (result.exit_code, server.asked) == (1, 0)
    assert reason in result.stderr


@pytest.mark.parametrize("data", [b"", b"not a recording"])
def test_a_recording_is_known_by_its_name_even_if_it_is_broken(server, run, home, data):
    (home / "talk.MP3").write_bytes(data)

    assert "talk.MP3 is a recording" in run("embed", "talk.MP3").stderr


@pytest.mark.parametrize("name", ["missing.txt", "."])
def test_a_file_that_cannot_be_read_is_refused(server, run, name):
    result = run("embed", name)

    assert result.exit_code == 1
    assert f"{name} cannot be read" in result.stderr


def test_dims_the_model_cannot_give_are_refused_with_those_it_can(server, run, texts):
    result = run("embed", texts, "--dims", 9999)

    assert (result.exit_code, server.asked) == (1, 0)
    assert "1 to 1536" in result.stderr


def test_without_a_key_the_keyless_model_answers(keyless, answer, texts):
    assert answer("embed", texts)["model"] == "all-MiniLM-L6-v2"


def test_a_named_model_that_needs_a_key_never_falls_back(keyless, run, texts):
    result = run("embed", texts, "--model", "text-embedding-3-large")

    assert (result.exit_code, keyless.asked) == (1, 0)
    assert "all-MiniLM-L6-v2" in result.stderr

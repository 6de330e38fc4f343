"""Calls of many requests: one bad text, an empty account, a full disk, slow answers, a deadline."""

import errno
import math
import os
import zlib

import numpy as np
import pytest
from tests.faults import virtual

import voxvec as vv
from voxvec.testing import FakeOpenAI, Fault

FIVE = vv.models.find("text-embedding-3-small", dims=8).replace(max_items=5)
FULL = vv.models.find("text-embedding-3-small", dims=8)


def texts(n):
    return [f"text {at}" for at in range(n)]


def refusing(fake, *poisons, says="Invalid 'input'."):
    """The fake refuses every request that holds one of these texts."""
    error = {"error": {"message": says, "type": "invalid_request_error", "param": "input", "code": None}}

    def is_bad(asked):
        return any(poison in asked.inputs for poison in poisons)

    fake.misbehave(Fault(status=400, body=error), when=is_bad, times=None)


@pytest.mark.case("J02")
@pytest.mark.parametrize("at", [0, 700, 2047])
def test_one_bad_text_among_two_thousand_is_found_with_few_requests(twin, clock, at):
    fake, many = FakeOpenAI(tokens=len), texts(2048)
    many[at] = "poison"
    refusing(fake, "poison")

    vectors = twin.embedder(FULL, client=twin.client(fake)).embed(many, on_error="keep")

    assert list(vectors.failed) == [at]
    assert (fake.billed, fake.paid_again) == (2047, 0)
    assert fake.asked <= 2 * math.ceil(math.log2(2048)) + 1


@pytest.mark.case("J02")
@pytest.mark.parametrize("says", ["Invalid value at '$.input[{}]'.", "body.input.{}: too long"])
def test_a_bad_text_that_the_server_names_is_found_at_once(twin, clock, says):
    fake, many = FakeOpenAI(tokens=len), texts(300)
    many[123] = "poison"

    refused = {"error": {"message": says.format(123), "type": "invalid_request_error", "param": None, "code": None}}
    fake.misbehave(Fault(status=400, body=refused), when=lambda asked: len(asked.inputs) == 300)
    refusing(fake, "poison")

    vectors = twin.embedder(FULL, client=twin.client(fake)).embed(many, on_error="keep")

    assert list(vectors.failed) == [123]
    assert fake.asked == 3  # all, the one, the others


@pytest.mark.case("J02")
def test_a_server_that_names_a_text_that_is_not_there_is_not_believed(twin, clock):
    fake, many = FakeOpenAI(tokens=len), texts(8)
    many[5] = "poison"
    refusing(fake, "poison", says="Invalid value at '$.input[4096]'.")

    vectors = twin.embedder(FULL, client=twin.client(fake)).embed(many, on_error="keep")

    assert list(vectors.failed) == [5]
    assert fake.asked <= 2 * 3 + 1


@pytest.mark.case("J03")
def test_an_empty_account_in_the_middle_stops_a_job_which_says_how_far_it_came(twin, clock, vectors_of):
    fake, many = FakeOpenAI(), texts(100)
    fake.misbehave(Fault(status=429, code="insufficient_quota"), when=lambda asked: fake.asked > 10, times=None)

    with pytest.raises(vv.QuotaError) as caught:
        twin.embedder(FIVE, client=twin.client(fake), workers=4).embed(many)

    error = caught.value
    assert fake.asked <= 10 + 4
    assert error.done == fake.delivered == 50
    assert error.done + error.failed + error.pending == 100
    assert np.isfinite(error.partial.array).all(axis=1).sum() == 50


@pytest.mark.case("J04")
def test_duplicates_across_requests_are_bought_once(twin, vectors_of):
    fake, many = FakeOpenAI(), texts(7) * 9

    vectors = twin.embedder(FIVE, client=twin.client(fake)).embed(many)

    assert vectors.tolist() == vectors_of(many, 8)
    assert (fake.billed, fake.asked) == (7, 2)


@pytest.mark.case("J05")
def test_an_output_file_is_old_or_new_never_half(tmp_path, monkeypatch):
    target = tmp_path / "vectors.npz"
    embedder = vv.Embedder(FIVE, client=FakeOpenAI().client())
    old, new = embedder.embed(texts(3)), embedder.embed(texts(9))
    old.save(target)
    save = np.savez

    def cut_off(file, **parts):
        save(file, **parts)
        file.truncate(100)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez", cut_off)
    with pytest.raises(OSError, match="No space left") as caught:
        new.save(target)

    assert caught.value.filename == str(target)
    assert vv.Embeddings.load(target) == old
    assert os.listdir(tmp_path) == ["vectors.npz"]  # noqa: PTH208 -- names are compared


def slow_for_three_of_ten(body):
    """0.1 s for most requests, ten times as long for three of ten [s]."""
    return 1.0 if zlib.crc32(body) % 10 < 3 else 0.1


@pytest.mark.case("J08")
@pytest.mark.parametrize("streamed", [False, True], ids=["embed", "stream"])
def test_slow_answers_hold_up_neither_the_others_nor_the_order(streamed, vectors_of):
    many, took = texts(400), []

    def work(body):
        took.append(slow_for_three_of_ten(body))
        return took[-1]

    async def story(world):
        world.work = work
        async with world.embedder(workers=8) as embedder:
            if not streamed:
                return (await embedder.embed(many)).array, world.age
            parts = [part.array async for part in embedder.stream(many)]
            return np.concatenate(parts), world.age

    array, age = virtual.play(story)

    assert array.tolist() == vectors_of(many, 8)
    ideal = sum(took + [0.05] * len(took)) / 8
    assert ideal / age >= 0.8


@pytest.mark.case("J09")
def test_a_job_with_another_model_or_other_dims_mixes_nothing(twin, tmp_path, vectors_of):
    fake, many, cache = FakeOpenAI(), texts(20), tmp_path / "vectors.db"
    fake.misbehave(Fault(status=400), when=lambda asked: "text 12" in asked.inputs, times=1)
    with pytest.raises(vv.RefusedError):
        twin.embedder(FIVE, client=twin.client(fake), cache=cache).embed(many)

    large = vv.models.find("text-embedding-3-large", dims=8)
    other = twin.embedder(large, client=twin.client(fake), cache=cache).embed(many)
    wider = twin.embedder("text-embedding-3-small", dimensions=16, client=twin.client(fake), cache=cache).embed(many)
    same = twin.embedder(FIVE, client=twin.client(fake), cache=cache).embed(many)

    assert other.tolist() == vectors_of(many, 8, "text-embedding-3-large")
    assert wider.tolist() == vectors_of(many, 16)
    assert np.abs(same.array - np.array(vectors_of(many, 8), np.float32)).max() < 1e-6


@pytest.mark.case("J10")
def test_a_job_ends_on_time_and_says_how_far_it_came(twin, timed):
    fake, many = timed(), texts(100)
    fake.misbehave(Fault(delay=1.0), times=None)

    with pytest.raises(vv.ServiceTimeoutError) as caught:
        twin.embedder(FIVE, client=twin.client(fake), workers=4, deadline=3.0).embed(many)

    error = caught.value
    assert 0 < error.done < 100
    assert error.done + error.failed + error.pending == 100
    assert fake.delivered >= error.done


@pytest.mark.case("J11")
def test_the_usage_of_the_parts_adds_up_to_the_servers(twin):
    fake, many, told = FakeOpenAI(), texts(100), []
    fake.mutate = lambda _, reply: (told.append(reply.json()["usage"]["prompt_tokens"]), reply)[1]

    vectors = twin.embedder(FIVE, client=twin.client(fake)).embed(many)

    assert vectors.usage.tokens == sum(told)
    assert vectors.usage.requests == fake.asked == 20
    assert vectors.cost == vectors.usage.tokens * FIVE.price / 1_000_000

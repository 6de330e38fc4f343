import base64
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxvec.local import safetensors
from voxvec.local.minilm import MiniLM, gelu

WIDTH, HEADS, LAYERS, WORDS, PLACES = 8, 2, 2, 30, 16


def tiny_weights():
    random = np.random.default_rng(7)
    shapes = {
        "embeddings.word_embeddings": (WORDS, WIDTH),
        "embeddings.position_embeddings": (PLACES, WIDTH),
        "embeddings.token_type_embeddings": (2, WIDTH),
        "embeddings.LayerNorm": (WIDTH,),
    }
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}"
        shapes |= {f"{layer}.attention.self.{part}": (WIDTH, WIDTH) for part in ("query", "key", "value")}
        shapes |= {
            f"{layer}.attention.output.dense": (WIDTH, WIDTH),
            f"{layer}.intermediate.dense": (3 * WIDTH, WIDTH),
            f"{layer}.output.dense": (WIDTH, 3 * WIDTH),
            f"{layer}.attention.output.LayerNorm": (WIDTH,),
            f"{layer}.output.LayerNorm": (WIDTH,),
        }
    tensors = {f"{name}.weight": random.normal(size=shape).astype("f4") for name, shape in shapes.items()}
    for name, shape in shapes.items():
        tensors[f"{name}.bias"] = random.normal(size=shape[0]).astype("f4")
    return tensors


WEIGHTS = tiny_weights()
model = MiniLM(WEIGHTS, heads=HEADS)


def slowly(ids):
    """The same, one number at a time, in double precision."""
    w = {name: array.astype(float) for name, array in WEIGHTS.items()}

    def norm(row, name):
        mean, variance = sum(row) / WIDTH, sum((row - sum(row) / WIDTH) ** 2) / WIDTH
        return (row - mean) / math.sqrt(variance + 1e-12) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def dense(row, name):
        return (
            np.array([sum(a * b for a, b in zip(line, row, strict=True)) for line in w[f"{name}.weight"]])
            + w[f"{name}.bias"]
        )

    base = w["embeddings.position_embeddings.weight"] + w["embeddings.token_type_embeddings.weight"][0]
    x = [norm(w["embeddings.word_embeddings.weight"][i] + base[at], "embeddings.LayerNorm") for at, i in enumerate(ids)]
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}"
        q, k, v = ([dense(row, f"{layer}.attention.self.{part}") for row in x] for part in ("query", "key", "value"))
        size = WIDTH // HEADS
        mixed = np.zeros((len(ids), WIDTH))
        for head in range(HEADS):
            part = slice(head * size, head * size + size)
            for i in range(len(ids)):
                scores = [math.exp(float(q[i][part] @ k[j][part]) / math.sqrt(size)) for j in range(len(ids))]
                mixed[i, part] = sum(s * v[j][part] for j, s in enumerate(scores)) / sum(scores)
        x = [
            norm(row + dense(m, f"{layer}.attention.output.dense"), f"{layer}.attention.output.LayerNorm")
            for row, m in zip(x, mixed, strict=True)
        ]
        wide = [
            np.array([a * 0.5 * math.erfc(-a / math.sqrt(2)) for a in dense(row, f"{layer}.intermediate.dense")])
            for row in x
        ]
        x = [
            norm(row + dense(h, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
            for row, h in zip(x, wide, strict=True)
        ]
    mean = sum(x) / len(x)
    return mean / math.sqrt(sum(mean**2))


texts = st.lists(st.lists(st.integers(0, WORDS - 1), min_size=1, max_size=PLACES), min_size=1, max_size=6)


@given(texts)
@settings(max_examples=25, deadline=None)
def test_the_maths_equals_a_slow_and_obvious_one(ids):
    assert np.abs(model.embed(ids) - np.array([slowly(text) for text in ids])).max() < 1e-5


@given(texts, st.randoms())
@settings(deadline=None)
def test_what_stands_beside_a_text_does_not_change_its_vector(ids, random):
    order = list(range(len(ids)))
    random.shuffle(order)

    together = model.embed([ids[number] for number in order])

    for row, number in zip(together, order, strict=True):
        assert np.abs(row - model.embed([ids[number]])[0]).max() < 1e-6


def test_more_tokens_than_one_pass_holds_are_computed_in_several():
    ids = [[number % WORDS] * (1 + number % PLACES) for number in range(400)]

    rows = model.embed(ids)

    assert rows.shape == (400, model.dims)
    assert np.abs(np.linalg.norm(rows, axis=1) - 1).max() < 1e-6
    assert np.abs(rows[399] - model.embed([ids[399]])[0]).max() < 1e-6


@given(st.lists(st.floats(-1000, 1000, width=32), min_size=1, max_size=30))
def test_gelu_is_within_a_ten_millionth(values):
    x = np.array(values, dtype=np.float32)
    exact = np.array([value * 0.5 * math.erfc(-value / math.sqrt(2)) for value in x.tolist()])

    assert np.all(np.abs(gelu(x) - exact) <= 1e-7 * np.maximum(1, np.abs(x)))


def test_gelu_takes_more_numbers_than_one_block():
    x = np.linspace(-8, 8, 40_000, dtype=np.float32).reshape(200, 200)

    assert np.array_equal(gelu(x)[150], gelu(x[150]))


def test_a_missing_weight_is_named():
    with pytest.raises(KeyError, match="word_embeddings"):
        MiniLM({})


def test_vectors_equal_those_of_sentence_transformers(installed):
    real = MiniLM(safetensors.parse((installed / "model.safetensors").read_bytes()))
    rows = json.loads((Path(__file__).parents[1] / "data" / "minilm.json").read_text("utf-8"))["rows"]
    published = np.array([np.frombuffer(base64.b64decode(row["vector"]), "<f4") for row in rows])

    assert np.abs(real.embed([row["ids"] for row in rows]) - published).max() < 1e-5

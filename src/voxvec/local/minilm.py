"""all-MiniLM-L6-v2 in NumPy: token ids in, unit vectors out.

Pure. Gives what sentence-transformers gives, to about 1e-6. Texts are computed side by side
without padding, so that a short one costs no more beside a long one, and what stands beside
a text changes nothing but the last bits.

Source:
    Devlin et al., *BERT* (2019); Vaswani et al., *Attention is all you need* (2017), §3;
    Reimers, Gurevych, *Sentence-BERT* (2019), §3 for the pooling.
"""

from __future__ import annotations

import math
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["MiniLM", "gelu"]

Matrix: TypeAlias = npt.NDArray[np.float32]

_EPSILON: Final = np.float32(1e-12)
# Tokens computed at once: enough to keep matrix multiplication busy, few enough to stay in the cache.
_TOKENS_PER_PASS: Final = 2048
_STEPS: Final = 1024
_REACH: Final = 6
# Numbers at once, so that the intermediate results stay in the processor's cache.
_BLOCK: Final = 16384


class _Dense(NamedTuple):
    """``x @ weight + bias``."""

    weight: Matrix
    bias: Matrix

    def __call__(self, x: Matrix) -> Matrix:
        out: Matrix = x @ self.weight
        out += self.bias
        return out


class _Norm(NamedTuple):
    """Layer normalisation."""

    weight: Matrix
    bias: Matrix

    def __call__(self, x: Matrix) -> Matrix:
        out: Matrix = x - x.mean(axis=1, keepdims=True)
        # One pass over the row instead of three: a product of the row with itself is its sum of squares.
        variance = np.einsum("ij,ij->i", out, out)[:, None] / np.float32(x.shape[1])
        out /= np.sqrt(variance + _EPSILON)
        out *= self.weight
        out += self.bias
        return out


class _Layer(NamedTuple):
    """One transformer block."""

    project: _Dense
    attended: _Dense
    attention_norm: _Norm
    widen: _Dense
    narrow: _Dense
    norm: _Norm

    def __call__(self, x: Matrix, runs: Sequence[_Run], heads: int) -> Matrix:
        x = self.attention_norm(x + self.attended(_attend(self.project(x), runs, heads)))
        return self.norm(x + self.narrow(gelu(self.widen(x))))


class _Run(NamedTuple):
    """Texts of one length that stand next to each other: rows ``start`` to ``start + texts * length``."""

    start: int
    texts: int
    length: int

    def rows(self) -> slice:
        return slice(self.start, self.start + self.texts * self.length)


class MiniLM:
    """The model with its weights.

    Args:
        tensors: Weights by their published names; checked for shape as far as the maths needs it.
        heads: Attention heads; the width of the model is a multiple of it.

    Raises:
        KeyError: A weight is missing.
    """

    def __init__(self, tensors: Mapping[str, npt.NDArray[Any]], *, heads: int = 12) -> None:
        self._heads = heads
        self._words: Matrix = tensors["embeddings.word_embeddings.weight"]
        types: Matrix = tensors["embeddings.token_type_embeddings.weight"]
        self._places: Matrix = tensors["embeddings.position_embeddings.weight"] + types[0]
        self._norm = _norm(tensors, "embeddings.LayerNorm")
        count = sum(name.endswith(".intermediate.dense.weight") for name in tensors)
        self._layers = [_layer(tensors, f"encoder.layer.{number}", heads) for number in range(count)]

    @property
    def dims(self) -> int:
        """Length of the vectors."""
        return len(self._words[0])

    def embed(self, texts: Sequence[Sequence[int]]) -> Matrix:
        """Vectors of texts given as token ids.

        Args:
            texts: Ids of each text, at least one; no longer than the model has positions (512).

        Returns:
            Rows of length 1, shape ``(len(texts), dims)``, in the order of ``texts``.
        """
        out = np.empty((len(texts), self.dims), dtype=np.float32)
        for together in _passes(texts):
            out[together] = self._embed([texts[number] for number in together])
        return out

    def _embed(self, texts: Sequence[Sequence[int]]) -> Matrix:
        lengths = [len(text) for text in texts]
        places = np.concatenate([np.arange(length) for length in lengths])
        x = self._norm(self._words[np.concatenate(texts)] + self._places[places])
        runs = list(_runs(lengths))
        for layer in self._layers:
            x = layer(x, runs, self._heads)
        starts = np.cumsum([0, *lengths[:-1]])
        # The sum over a text's tokens points where their mean does, and only the direction is kept.
        sums: Matrix = np.add.reduceat(x, starts, axis=0)
        sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), _EPSILON)
        return sums


def _passes(texts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Positions of texts to compute at once, the shortest first."""
    together: list[int] = []
    tokens = 0
    for number in sorted(range(len(texts)), key=lambda number: len(texts[number])):
        if together and tokens + len(texts[number]) > _TOKENS_PER_PASS:
            yield together
            together, tokens = [], 0
        together.append(number)
        tokens += len(texts[number])
    yield together


def _runs(lengths: Sequence[int]) -> Iterator[_Run]:
    start = 0
    for length, group in groupby(lengths):
        run = _Run(start, sum(1 for _ in group), length)
        yield run
        start = run.rows().stop


def _attend(projected: Matrix, runs: Sequence[_Run], heads: int) -> Matrix:
    """Scaled dot-product attention within each text.

    Args:
        projected: Queries (already scaled), keys and values side by side, shape ``(tokens, 3 * width)``.
        runs: Which rows belong to one text.
        heads: How many parts each of the three has.

    Returns:
        Shape ``(tokens, width)``.
    """
    width = projected.shape[1] // 3
    out = np.empty((len(projected), width), dtype=np.float32)
    for run in runs:
        parts = projected[run.rows()].reshape(run.texts, run.length, 3, heads, width // heads)
        queries, keys, values = parts.transpose(2, 0, 3, 1, 4)
        mixed = _softmax(queries @ keys.swapaxes(2, 3)) @ values
        out[run.rows()] = mixed.swapaxes(1, 2).reshape(-1, width)
    return out


def _softmax(scores: Matrix) -> Matrix:
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


def _normal() -> tuple[Matrix, Matrix]:
    """Normal distribution and its density at every step from -reach to reach."""
    grid = np.arange(-_REACH * _STEPS, _REACH * _STEPS + 1) / _STEPS
    below = [0.5 * math.erfc(-x / math.sqrt(2)) for x in grid.tolist()]
    density = np.exp(-0.5 * grid * grid) / math.sqrt(2 * math.pi)
    return np.array(below, dtype=np.float32), density.astype(np.float32)


_BELOW, _DENSITY = _normal()


def gelu(x: Matrix) -> Matrix:
    """``x * P(X <= x)`` for a normal X, the exact form with the error function.

    Probabilities are looked up at the nearest step of a table and continued by their slope:
    within 1e-7 everywhere, and several times faster than anything that calls ``erf``.

    Source:
        Hendrycks, Gimpel, *Gaussian Error Linear Units* (2016), eq. 1.
    """
    out = np.empty_like(x)
    flat, flat_out = x.reshape(-1), out.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        np.multiply(flat[block], _below(flat[block]), out=flat_out[block])
    return out


def _below(x: Matrix) -> Matrix:
    inside = np.clip(x, -_REACH, _REACH)
    nearest = np.rint(inside * np.float32(_STEPS))
    at = (nearest + np.float32(_REACH * _STEPS)).astype(np.intp)
    nearest /= np.float32(_STEPS)
    inside -= nearest
    inside *= _DENSITY.take(at)
    inside += _BELOW.take(at)
    return inside


def _dense(tensors: Mapping[str, npt.NDArray[Any]], name: str) -> _Dense:
    return _Dense(tensors[f"{name}.weight"].T, tensors[f"{name}.bias"])


def _norm(tensors: Mapping[str, npt.NDArray[Any]], name: str) -> _Norm:
    return _Norm(tensors[f"{name}.weight"], tensors[f"{name}.bias"])


def _layer(tensors: Mapping[str, npt.NDArray[Any]], name: str, heads: int) -> _Layer:
    query, key, value = (_dense(tensors, f"{name}.attention.self.{part}") for part in ("query", "key", "value"))
    scale = np.float32(1 / math.sqrt(query.weight.shape[1] // heads))
    project = _Dense(
        np.concatenate([query.weight * scale, key.weight, value.weight], axis=1),
        np.concatenate([query.bias * scale, key.bias, value.bias]),
    )
    return _Layer(
        project,
        _dense(tensors, f"{name}.attention.output.dense"),
        _norm(tensors, f"{name}.attention.output.LayerNorm"),
        _dense(tensors, f"{name}.intermediate.dense"),
        _dense(tensors, f"{name}.output.dense"),
        _norm(tensors, f"{name}.output.LayerNorm"),
    )

"""Which vectors are nearest: exact, block by block.

A fast product in 32 bits sorts out what cannot be among the nearest, with proven
bounds on its rounding; the few rows that are left are compared in 64 bits. So the
answer depends neither on the size of the blocks nor on the processor. Knows arrays
only and starts nothing of its own.
"""

from __future__ import annotations

from operator import index
from typing import Any, Literal, Protocol, Self, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from voxvec.errors import ConfigError
from voxvec.similarity.measures import (
    Exact,
    Matrix,
    Rows,
    as_rows,
    check_widths,
    exact_lengths,
    lengths,
    ordinary,
    positive,
    spans,
)

__all__ = ["Measure", "top_k"]

Measure: TypeAlias = Literal["cosine", "dot", "euclidean"]
Positions: TypeAlias = npt.NDArray[np.int64]

_QUERIES_AT_A_TIME, _PAIRS_AT_A_TIME = 256, 128
_EPSILON = float(np.finfo(np.float32).eps)


class _Ranking(Protocol):
    """A measure turned into keys that are larger for nearer rows."""

    def asked(self, queries: Exact) -> Exact:
        """The queries as they are multiplied."""
        ...

    def screen(self, products: npt.NDArray[Any], row_lengths: Exact) -> None:
        """Turn products with the queries into rough keys, in place."""
        ...

    def doubt(self, query_lengths: Exact, row_lengths: Exact) -> Exact:
        """What the rounding error of a rough key is proportional to, at most."""
        ...

    def rough(self, key: npt.NDArray[np.float32], query_lengths: Exact) -> Exact:
        """The rough keys that belong to exact ones."""
        ...

    def fine(self, rough: npt.NDArray[Any], query_lengths: Exact) -> npt.NDArray[Any]:
        """The exact keys that belong to rough ones."""
        ...

    def keys(self, queries: Exact, rows: Exact) -> Exact:
        """The exact keys of a few pairs."""
        ...


class _Cosine:
    """Keys are cosines."""

    def asked(self, queries: Exact) -> Exact:
        return queries / positive(exact_lengths(queries))[:, np.newaxis]

    def screen(self, products: npt.NDArray[Any], row_lengths: Exact) -> None:
        products *= (1.0 / positive(row_lengths)).astype(products.dtype)

    def doubt(self, query_lengths: Exact, row_lengths: Exact) -> Exact:  # noqa: ARG002 -- one protocol for all
        return query_lengths

    def rough(self, key: npt.NDArray[np.float32], query_lengths: Exact) -> Exact:  # noqa: ARG002 -- one protocol for all
        return key.astype(np.float64)

    def fine(self, rough: npt.NDArray[Any], query_lengths: Exact) -> npt.NDArray[Any]:  # noqa: ARG002 -- as above
        return rough

    def keys(self, queries: Exact, rows: Exact) -> Exact:
        products: Exact = np.einsum("ij,ij->i", rows, queries)
        return np.clip(products / positive(exact_lengths(rows)), -1.0, 1.0)


class _Dot:
    """Keys are products."""

    def asked(self, queries: Exact) -> Exact:
        return queries

    def screen(self, products: npt.NDArray[Any], row_lengths: Exact) -> None:
        pass

    def doubt(self, query_lengths: Exact, row_lengths: Exact) -> Exact:
        return query_lengths * row_lengths

    def rough(self, key: npt.NDArray[np.float32], query_lengths: Exact) -> Exact:  # noqa: ARG002 -- one protocol for all
        return key.astype(np.float64)

    def fine(self, rough: npt.NDArray[Any], query_lengths: Exact) -> npt.NDArray[Any]:  # noqa: ARG002 -- as above
        return rough

    def keys(self, queries: Exact, rows: Exact) -> Exact:
        products: Exact = np.einsum("ij,ij->i", rows, queries)
        return products


class _Euclidean:
    """Keys are distances with a minus; rough keys are ``qv - |v|²/2``, which falls as the distance grows."""

    def asked(self, queries: Exact) -> Exact:
        return queries

    def screen(self, products: npt.NDArray[Any], row_lengths: Exact) -> None:
        products -= (0.5 * row_lengths**2).astype(products.dtype)

    def doubt(self, query_lengths: Exact, row_lengths: Exact) -> Exact:
        return (query_lengths + row_lengths) ** 2

    def rough(self, key: npt.NDArray[np.float32], query_lengths: Exact) -> Exact:
        return 0.5 * (query_lengths**2 - key.astype(np.float64) ** 2)

    def fine(self, rough: npt.NDArray[Any], query_lengths: Exact) -> npt.NDArray[Any]:
        return np.negative(np.sqrt(np.maximum(query_lengths**2 - 2.0 * rough, 0.0)))

    def keys(self, queries: Exact, rows: Exact) -> Exact:
        return -exact_lengths(rows - queries)


_RANKINGS: dict[str, _Ranking] = {"cosine": _Cosine(), "dot": _Dot(), "euclidean": _Euclidean()}


def top_k(
    queries: npt.ArrayLike | Matrix,
    vectors: npt.ArrayLike | Matrix,
    k: int,
    *,
    measure: Measure = "cosine",
    block: int = 16384,
) -> tuple[Rows, Positions]:
    """The ``k`` rows of ``vectors`` nearest to every query, found by comparing with all of them.

    Args:
        queries: Rows to look for, shape ``(n, dims)``, or one vector, shape ``(dims,)``.
        vectors: Rows to search, shape ``(m, dims)``; they are neither copied nor changed.
        k: How many to find, at least 1; where there are fewer rows, all are found.
        measure: What near means: the largest cosine or dot product, or the smallest Euclidean distance.
        block: How many rows are compared at a time. Extra memory is a few times
            ``block * min(n, 256) * 4`` bytes.

    Returns:
        Scores (float32) and positions (int64), nearest first, each of shape ``(n, min(k, m))``, without
        the first axis for one query. Rows with the same score stand in the order of their positions.

    Raises:
        ConfigError: ``k`` or ``block`` is less than 1, or the measure is unknown.
        InputError: The widths differ, or a row holds NaN or an infinity.

    Examples:
        >>> scores, positions = top_k([1.0, 0.0], [[0.0, 1.0], [2.0, 0.0], [1.0, 1.0]], k=2)
        >>> positions.tolist()
        [1, 2]
    """
    asked, single = as_rows(queries, "queries")
    rows, _ = as_rows(vectors, "vectors")
    scores, positions = nearest(asked, rows, lengths(rows, "vectors"), k, measure=measure, block=block)
    return (scores[0], positions[0]) if single else (scores, positions)


def nearest(
    queries: Rows, vectors: Rows, row_lengths: Exact, k: int, *, measure: Measure, block: int = 16384
) -> tuple[Rows, Positions]:
    """Do what `top_k` does, for rows whose lengths are known."""
    check_measure(measure)
    k, block = min(_count(k, "k"), len(vectors)), _count(block, "block")
    if vectors.size or vectors.shape[1]:
        check_widths(queries, vectors, ("queries", "vectors"))
    asked_lengths = lengths(queries, "queries")
    dtype = np.dtype(np.float32 if ordinary(asked_lengths, row_lengths) else np.float64)
    scores = np.empty((len(queries), k), dtype=np.float32)
    positions = np.empty((len(queries), k), dtype=np.int64)
    for some in spans(len(queries) if k else 0, _QUERIES_AT_A_TIME):
        best = _Search(_RANKINGS[measure], queries[some], k, dtype).over(vectors, row_lengths, block)
        scores[some] = np.negative(best.keys) if measure == "euclidean" else best.keys
        positions[some] = best.positions
    return scores, positions


def check_measure(measure: str) -> None:
    """Raise `ConfigError` unless the measure is one of `Measure`."""
    if measure not in _RANKINGS:
        raise ConfigError(f"measure must be one of {', '.join(get_args(Measure))}, not {measure!r}")


def _count(value: int, what: str) -> int:
    try:
        count = index(value)
    except TypeError:
        count = 0
    if isinstance(value, bool) or count < 1:
        raise ConfigError(f"{what} must be a whole number of at least 1, not {value!r}")
    return count


class _Search:
    """The best rows so far of some queries, and how to look at more."""

    def __init__(self, ranking: _Ranking, queries: Rows, k: int, dtype: np.dtype[Any]) -> None:
        self._ranking = ranking
        self._asked = ranking.asked(queries.astype(np.float64))
        self._lengths = exact_lengths(self._asked)[:, np.newaxis]
        self._dtype = dtype
        # Twice the bound on a sum of products (Higham, Accuracy and Stability of Numerical Algorithms, 3.5), since
        # lengths are rounded too; the rest covers single operations.
        self._slack = (queries.shape[1] + 16) * _EPSILON
        self.keys = np.full((len(queries), k), -np.inf, dtype=np.float32)
        self.positions = np.full((len(queries), k), np.iinfo(np.int64).max, dtype=np.int64)

    def over(self, vectors: Rows, row_lengths: Exact, block: int) -> Self:
        multiplied = self._asked.astype(self._dtype)
        for span in spans(len(vectors), block):
            part = vectors[span]
            rough = multiplied @ part.astype(self._dtype, copy=False).T
            self._ranking.screen(rough, row_lengths[span])
            queries, rows = np.divmod(np.flatnonzero(self._candidates(rough, row_lengths[span])), len(part))
            self._merge(queries, self._exact_keys(queries, part, rows), rows + span.start)
        return self

    def _candidates(self, rough: npt.NDArray[Any], row_lengths: Exact) -> npt.NDArray[np.bool_]:
        """Which rows of the block may be among the best of which query."""
        k = self.keys.shape[1]
        floor = self._ranking.rough(self.keys[:, -1:], self._lengths)
        # A row that only equals the worst one found so far cannot replace it: its position is higher.
        found: npt.NDArray[np.bool_] = rough > (floor - self._doubt(row_lengths.max(keepdims=True))).astype(self._dtype)
        if np.count_nonzero(found) <= 2 * self.keys.size or len(row_lengths) <= k:
            return found
        # So many that it pays to compare them with each other, and with a bound of their own.
        doubt = self._doubt(row_lengths).astype(self._dtype)
        kth = np.partition(self._fine(rough - doubt), -k, axis=1)[:, -k, np.newaxis]
        found &= self._fine(rough + doubt) >= kth
        return found

    def _fine(self, rough: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        # In 32 bits like the keys: those that become equal there, in whatever way, must not be told apart here.
        with np.errstate(over="ignore", under="ignore"):
            return self._ranking.fine(rough, self._lengths).astype(np.float32, copy=False)

    def _doubt(self, row_lengths: Exact) -> Exact:
        doubt: Exact = self._slack * self._ranking.doubt(self._lengths, row_lengths)
        return doubt

    def _exact_keys(self, queries: Positions, part: Rows, rows: Positions) -> npt.NDArray[np.float32]:
        keys = np.empty(len(rows), dtype=np.float32)
        for span in spans(len(rows), _PAIRS_AT_A_TIME):
            with np.errstate(over="ignore", under="ignore"):
                keys[span] = self._ranking.keys(self._asked[queries[span]], part[rows[span]].astype(np.float64))
        return keys

    def _merge(self, queries: Positions, keys: npt.NDArray[np.float32], positions: Positions) -> None:
        count, k = self.keys.shape
        queries = np.concatenate((np.repeat(np.arange(count), k), queries))
        keys = np.concatenate((self.keys.ravel(), keys))
        positions = np.concatenate((self.positions.ravel(), positions))
        order = np.lexsort((positions, -keys, queries))
        # Every query has at least k entries, the ones from before.
        firsts = np.searchsorted(queries[order], np.arange(count))
        best = order[firsts[:, np.newaxis] + np.arange(k)]
        self.keys, self.positions = keys[best], positions[best]

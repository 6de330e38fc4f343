"""How alike two vectors are, and how to bring vectors to unit length or fewer dims.

Pure functions of arrays. They promise finite answers for finite vectors, however
large, small or close together the entries are, as far as 32-bit floats can hold them.
What a zero vector or a NaN means is said in the package's docstring.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from voxvec.errors import ConfigError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["cosine", "dot", "euclidean", "normalize", "truncate"]

Rows: TypeAlias = npt.NDArray[np.float32]
Exact: TypeAlias = npt.NDArray[np.float64]
Vector: TypeAlias = "np.ndarray[tuple[int], np.dtype[Any]] | Sequence[float]"
Matrix: TypeAlias = "TwoAxes | Sequence[Sequence[float]]"

_MIN_LENGTH, _MAX_LENGTH = 1e-12, 1e15
_SLICE = 2048
_CLOSE = 1e-6


class TwoAxes(Protocol):
    """An array of rows, as far as types can tell: NumPy's with two axes, a data frame, an `Embeddings`."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and dims."""
        ...

    def __array__(self) -> Any: ...


def spans(total: int, size: int) -> Iterator[slice]:
    """Slices that cover ``range(total)`` in order, each at most ``size`` long."""
    return (slice(start, min(start + size, total)) for start in range(0, total, size))


def as_rows(vectors: npt.ArrayLike | Matrix, what: str) -> tuple[Rows, bool]:
    """Read an array-like as rows of 32-bit floats.

    Args:
        vectors: One vector (1-D) or rows of vectors (2-D). A C-contiguous float32 array is not copied.
        what: What to call it in an error.

    Returns:
        The rows, shape ``(n, dims)``, and whether it was a single vector. An empty list is no rows, shape ``(0, 0)``.

    Raises:
        InputError: It is not 1-D or 2-D, or not made of real numbers.
    """
    try:
        array = np.asarray(vectors)
        if array.dtype.kind not in "fiubO":
            raise InputError(f"{what} must be made of real numbers, not of {array.dtype}")
        # A float64 beyond the range of float32 becomes an infinity here, and is named as such later.
        with np.errstate(over="ignore", under="ignore"):
            rows = np.asarray(array, dtype=np.float32, order="C")
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{what} cannot be read as an array of numbers, all rows of one length: {error}") from None
    if rows.ndim == 1:
        return (rows.reshape(1, -1), True) if rows.size else (rows.reshape(0, 0), False)
    if rows.ndim != 2:  # noqa: PLR2004 -- rows and columns
        raise InputError(f"{what} must be one vector (1-D) or rows of vectors (2-D), not of shape {rows.shape}")
    return rows, False


def lengths(rows: Rows, what: str) -> Exact:
    """Euclidean length of every row, shape ``(n,)``.

    Raises:
        InputError: Some rows hold NaN or an infinity; ``positions`` names them all.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        squares: Rows = np.einsum("ij,ij->i", rows, rows)
        result = np.sqrt(squares, dtype=np.float64)
    # Squares of very large entries overflow and those of very small ones vanish: such rows once more in 64 bits.
    odd = np.flatnonzero(~((result >= _MIN_LENGTH) & (result <= _MAX_LENGTH)))
    for span in spans(len(odd), _SLICE):
        result[odd[span]] = exact_lengths(rows[odd[span]].astype(np.float64))
    _refuse_non_finite(np.flatnonzero(~np.isfinite(result)).tolist(), what)
    return result


def exact_lengths(rows: Exact) -> Exact:
    """Euclidean length of every row in 64 bits, where no square of a float32 overflows or vanishes."""
    squares: Exact = np.einsum("ij,ij->i", rows, rows)
    return np.sqrt(squares)


def _refuse_non_finite(positions: list[int], what: str) -> None:
    if not positions:
        return
    named = ", ".join(map(str, positions[:10]))
    more = f", … ({len(positions)} in all)" if len(positions) > 10 else ""  # noqa: PLR2004 -- enough to find the cause
    raise InputError(
        f"{what}: row {named}{more} holds NaN, an infinity or a number beyond 32 bits; nothing was computed, "
        "drop these rows or get their vectors again",
        positions=positions,
    )


def ordinary(*row_lengths: Exact) -> bool:
    """Whether products of such rows neither overflow nor vanish in 32 bits; zero rows are fine."""
    return all(bool(np.all((each == 0) | ((each >= _MIN_LENGTH) & (each <= _MAX_LENGTH)))) for each in row_lengths)


def positive(values: Exact) -> Exact:
    """The values with every 0 replaced by 1, to divide by: zero rows stay zero."""
    return np.where(values == 0, 1.0, values)


def _unit(rows: Rows | Exact, row_lengths: Exact) -> Rows:
    result = np.empty(rows.shape, dtype=np.float32)
    # Divides in 64 bits, a few thousand entries at a time: the reciprocal of a denormal length is not a float32.
    return np.divide(rows, positive(row_lengths)[:, np.newaxis], out=result, casting="same_kind")


def check_widths(left: Rows, right: Rows, names: tuple[str, str]) -> None:
    """Raise `InputError` naming both shapes unless both have rows of one length."""
    if left.shape[1] != right.shape[1]:
        raise InputError(
            f"{names[0]} of shape {left.shape} and {names[1]} of shape {right.shape} cannot be compared: "
            f"their rows have {left.shape[1]} and {right.shape[1]} dims"
        )


def _pair(
    a: npt.ArrayLike | Matrix, b: npt.ArrayLike | Matrix
) -> tuple[tuple[Rows, Exact], tuple[Rows, Exact], tuple[Any, Any]]:
    """Both as rows with their lengths, and the index that takes away the axes the caller did not have."""
    (left, left_single), (right, right_single) = as_rows(a, "a"), as_rows(b, "b")
    check_widths(left, right, ("a", "b"))
    axes = (0 if left_single else slice(None), 0 if right_single else slice(None))
    return (left, lengths(left, "a")), (right, lengths(right, "b")), axes


def _like_inputs(table: Rows, axes: tuple[Any, Any]) -> Rows | float:
    reduced: Rows = table[axes]
    return float(reduced) if axes == (0, 0) else reduced


@overload
def cosine(a: Vector, b: Vector) -> float: ...
@overload
def cosine(a: Matrix, b: npt.ArrayLike | Matrix) -> Rows: ...
@overload
def cosine(a: npt.ArrayLike, b: Matrix) -> Rows: ...
@overload
def cosine(a: npt.ArrayLike, b: npt.ArrayLike) -> Rows | float: ...
def cosine(a: npt.ArrayLike | Matrix, b: npt.ArrayLike | Matrix) -> Rows | float:
    """Cosine similarity of every row of ``a`` with every row of ``b``.

    Args:
        a: Rows to compare, shape ``(n, dims)``, or one vector, shape ``(dims,)``.
        b: Rows to compare with, shape ``(m, dims)``, or one vector, shape ``(dims,)``.

    Returns:
        Similarities in [-1, 1], float32, shape ``(n, m)``; a single vector has no axis in it, as with
        `numpy.dot`: ``(m,)`` or ``(n,)``, and a float for two vectors. A zero row is similar to nothing: 0.

    Raises:
        InputError: The widths differ, or a row holds NaN or an infinity.

    Examples:
        >>> cosine([[1.0, 0.0], [0.0, 1.0]], [3.0, 0.0]).tolist()
        [1.0, 0.0]

    Source:
        Manning, Raghavan, Schütze, *Introduction to Information Retrieval* (2008), eq. 6.10.
    """
    (left, left_lengths), (right, right_lengths), axes = _pair(a, b)
    table = _unit(left, left_lengths) @ _unit(right, right_lengths).T
    return _like_inputs(np.clip(table, -1.0, 1.0, out=table), axes)


@overload
def dot(a: Vector, b: Vector) -> float: ...
@overload
def dot(a: Matrix, b: npt.ArrayLike | Matrix) -> Rows: ...
@overload
def dot(a: npt.ArrayLike, b: Matrix) -> Rows: ...
@overload
def dot(a: npt.ArrayLike, b: npt.ArrayLike) -> Rows | float: ...
def dot(a: npt.ArrayLike | Matrix, b: npt.ArrayLike | Matrix) -> Rows | float:
    """Dot product of every row of ``a`` with every row of ``b``.

    Args:
        a: Rows to compare, shape ``(n, dims)``, or one vector, shape ``(dims,)``.
        b: Rows to compare with, shape ``(m, dims)``, or one vector, shape ``(dims,)``.

    Returns:
        Products, float32, shape ``(n, m)``, with the axes of single vectors taken away as by `cosine`.
        A product beyond the range of 32 bits is an infinity of its sign, never NaN.

    Raises:
        InputError: The widths differ, or a row holds NaN or an infinity.
    """
    (left, left_lengths), (right, right_lengths), axes = _pair(a, b)
    if ordinary(left_lengths, right_lengths):
        return _like_inputs(left @ right.T, axes)
    with np.errstate(over="ignore", under="ignore"):
        return _like_inputs((left.astype(np.float64) @ right.T.astype(np.float64)).astype(np.float32), axes)


@overload
def euclidean(a: Vector, b: Vector) -> float: ...
@overload
def euclidean(a: Matrix, b: npt.ArrayLike | Matrix) -> Rows: ...
@overload
def euclidean(a: npt.ArrayLike, b: Matrix) -> Rows: ...
@overload
def euclidean(a: npt.ArrayLike, b: npt.ArrayLike) -> Rows | float: ...
def euclidean(a: npt.ArrayLike | Matrix, b: npt.ArrayLike | Matrix) -> Rows | float:
    """Euclidean distance of every row of ``a`` from every row of ``b``.

    Args:
        a: Rows to compare, shape ``(n, dims)``, or one vector, shape ``(dims,)``.
        b: Rows to compare with, shape ``(m, dims)``, or one vector, shape ``(dims,)``.

    Returns:
        Distances from 0 upwards, float32, shape ``(n, m)``, with the axes of single vectors taken away as by
        `cosine`. Exact to 32 bits also for points close together: equal rows have distance 0.

    Raises:
        InputError: The widths differ, or a row holds NaN or an infinity.
    """
    (left, _), (right, _), axes = _pair(a, b)
    table = np.empty((len(left), len(right)), dtype=np.float32)
    for rows in spans(len(left), _SLICE):
        exact = left[rows].astype(np.float64)
        for columns in spans(len(right), _SLICE):
            with np.errstate(over="ignore", under="ignore"):
                table[rows, columns] = _distances(exact, right[columns].astype(np.float64))
    return _like_inputs(table, axes)


def _distances(left: Exact, right: Exact) -> Exact:
    sizes = np.einsum("ij,ij->i", left, left)[:, np.newaxis] + np.einsum("ij,ij->i", right, right)
    squares = sizes - 2.0 * (left @ right.T)
    # Close together, |a|² + |b|² - 2ab is the difference of nearly equal numbers: subtract the vectors instead.
    near = np.argwhere(squares <= _CLOSE * sizes)
    for span in spans(len(near), _SLICE):
        i, j = near[span].T
        gaps = left[i] - right[j]
        squares[i, j] = np.einsum("ij,ij->i", gaps, gaps)
    distances: Exact = np.sqrt(squares)
    return distances


def normalize(x: npt.ArrayLike | Matrix) -> Rows:
    """The vectors brought to length 1.

    Args:
        x: Rows, shape ``(n, dims)``, or one vector, shape ``(dims,)``.

    Returns:
        A new float32 array of the same shape; zero rows stay zero.

    Raises:
        InputError: A row holds NaN or an infinity.
    """
    rows, single = as_rows(x, "x")
    return _unit(rows, lengths(rows, "x"))[0 if single else slice(None)]


def truncate(x: npt.ArrayLike | Matrix, dims: int, *, layer_norm: bool = False) -> Rows:
    """Matryoshka vectors cut to their first entries and brought to length 1 again.

    Only models trained for it give vectors that survive this, see `EmbeddingModel.matryoshka`.

    Args:
        x: Rows, shape ``(n, width)``, or one vector, shape ``(width,)``.
        dims: How many entries to keep, from 1 to the width.
        layer_norm: Layer-normalise over the full width before cutting, for models such as nomic-embed-text-v1.5.

    Returns:
        A new float32 array, shape ``(n, dims)`` or ``(dims,)``; zero rows stay zero.

    Raises:
        ConfigError: ``dims`` is less than 1 or more than the width.
        InputError: A row holds NaN or an infinity.

    Source:
        Kusupati et al., *Matryoshka Representation Learning* (2022), arXiv:2205.13147; for ``layer_norm``
        the model card of nomic-ai/nomic-embed-text-v1.5.
    """
    rows, single = as_rows(x, "x")
    if not 1 <= dims <= rows.shape[1]:
        raise ConfigError(f"vectors of {rows.shape[1]} dims cannot be cut to {dims}; ask for 1 to {rows.shape[1]}")
    row_lengths = lengths(rows, "x")
    if layer_norm:
        centred = _centred(rows)[:, :dims]
        result = _unit(centred, exact_lengths(centred))
    else:
        cut = np.ascontiguousarray(rows[:, :dims])
        result = _unit(cut, row_lengths if dims == rows.shape[1] else lengths(cut, "x"))
    return result[0 if single else slice(None)]


def _centred(rows: Rows) -> Exact:
    # Layer normalisation also divides by the standard deviation, which the final scaling to length 1 would undo.
    centred: Exact = rows - rows.mean(axis=1, keepdims=True, dtype=np.float64)
    # The mean of equal entries is rounded; what is left of such a row is noise, not a direction.
    centred[rows.max(axis=1) == rows.min(axis=1)] = 0.0
    return centred

"""Things found by their vectors, in memory.

An index holds the vectors and what they stand for, checks them once, and answers
exactly. It keeps no copy of a float32 matrix, so leave that matrix as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from voxvec.errors import InputError
from voxvec.similarity.measures import as_rows, lengths
from voxvec.similarity.search import Measure, check_measure, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from voxvec.similarity.measures import Matrix, Rows, Vector

__all__ = ["Hit", "Index"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Hit(Generic[T_co]):
    """One result of a search.

    Attributes:
        item: What was found.
        score: How near it is: the cosine, the dot product or the Euclidean distance, as the index measures.
        position: Its row in the index, from 0.
    """

    item: T_co
    score: float
    position: int


class Index(Generic[T]):
    """Vectors in memory with what they stand for, searched exactly.

    Args:
        vectors: Rows to search, shape ``(n, dims)``. A C-contiguous float32 array is used as it is, without a copy.
        items: What each row stands for; the row's position if left out.
        measure: What near means: the largest cosine or dot product, or the smallest Euclidean distance.

    Raises:
        ConfigError: The measure is unknown.
        InputError: There are not as many items as rows, or a row holds NaN or an infinity.

    Examples:
        >>> index = Index([[1.0, 0.0], [0.0, 1.0]], items=["east", "north"])
        >>> [hit.item for hit in index.search([0.1, 0.9], k=1)]
        ['north']
    """

    @overload
    def __init__(
        self: Index[int], vectors: npt.ArrayLike | Matrix, items: None = None, *, measure: Measure = ...
    ) -> None: ...
    @overload
    def __init__(self, vectors: npt.ArrayLike | Matrix, items: Iterable[T], *, measure: Measure = ...) -> None: ...
    def __init__(
        self, vectors: npt.ArrayLike | Matrix, items: Iterable[Any] | None = None, *, measure: Measure = "cosine"
    ) -> None:
        check_measure(measure)
        self._measure: Measure = measure
        self._rows = as_rows(vectors, "vectors")[0].view()
        self._rows.flags.writeable = False
        self._items: Sequence[Any] = range(len(self._rows)) if items is None else tuple(items)
        if len(self._items) != len(self._rows):
            raise InputError(f"an index needs one item per row, not {len(self._items)} for {len(self._rows)} rows")
        self._lengths = lengths(self._rows, "vectors")

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"<Index of {len(self)} vectors of {self._rows.shape[1]} dims by {self._measure}>"

    @overload
    def search(self, vector: Vector, k: int = 10) -> list[Hit[T]]: ...
    @overload
    def search(self, vector: Matrix, k: int = 10) -> list[list[Hit[T]]]: ...
    @overload
    def search(self, vector: npt.ArrayLike, k: int = 10) -> list[Hit[T]] | list[list[Hit[T]]]: ...
    def search(self, vector: npt.ArrayLike | Matrix, k: int = 10) -> list[Hit[T]] | list[list[Hit[T]]]:
        """Find the ``k`` rows nearest to a vector, or to each of several.

        A type checker can tell the two cases apart where the type says how many axes the array has
        (``np.ndarray[tuple[int], …]``, a list of floats, an `Embeddings`); ``NDArray`` does not say it.

        Args:
            vector: One vector, shape ``(dims,)``, or rows of vectors, shape ``(n, dims)``.
            k: How many hits, at least 1; an index with fewer rows gives them all.

        Returns:
            Hits for one vector, nearest first, or a list of such lists, one for each row.
            Hits with the same score stand in the order of their positions.

        Raises:
            ConfigError: ``k`` is less than 1.
            InputError: The width is not the index's, or a row holds NaN or an infinity.
        """
        queries, single = as_rows(vector, "vector")
        found = self._hits(queries, k)
        return found[0] if single else found

    def _hits(self, queries: Rows, k: int) -> list[list[Hit[T]]]:
        scores, positions = nearest(queries, self._rows, self._lengths, k, measure=self._measure)
        return [
            [Hit(self._items[position], score, position) for score, position in zip(*pair, strict=True)]
            for pair in zip(scores.tolist(), positions.tolist(), strict=True)
        ]

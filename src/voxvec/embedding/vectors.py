"""What `embed` returns: a float32 matrix and what it took to get it.

Pure: files are read and written only where `Embeddings.load` and `Embeddings.save` say so.
"""

from __future__ import annotations

import json
import os
import secrets
import zipfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any, SupportsIndex, overload

import numpy as np

from voxvec.errors import ConfigError, InputError, VoxvecError
from voxvec.similarity.measures import truncate

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    import numpy.typing as npt

    from voxvec.models import Matryoshka

__all__ = ["Embeddings", "Usage"]

_FORMAT = 1
# What reading a file that is damaged, or was never ours, can end in.
_DAMAGE = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError),
    zipfile.BadZipFile,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a call took.

    Attributes:
        tokens: Tokens the server charged for [tokens].
        requests: Requests made, failed ones included.
        retries: How many of them were made because another had failed.
        maybe_billed: How many failed requests may have been billed all the same; ``tokens`` does not hold them.
        estimated: Whether the server left some tokens uncounted, so that an upper bound stands in for them.
        miscounted: Answers whose count of tokens could not be, and was passed over; ``estimated`` is true then.
    """

    tokens: int = 0
    requests: int = 0
    retries: int = 0
    maybe_billed: int = 0
    estimated: bool = False
    miscounted: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            tokens=self.tokens + other.tokens,
            requests=self.requests + other.requests,
            retries=self.retries + other.retries,
            maybe_billed=self.maybe_billed + other.maybe_billed,
            estimated=self.estimated or other.estimated,
            miscounted=self.miscounted + other.miscounted,
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Embeddings:
    """Vectors in the order of the texts, read-only, as a sequence of rows.

    NumPy functions take it as it is: ``np.mean(vectors, axis=0)``.

    Attributes:
        array: The vectors, shape ``(n, dims)``, float32, C-contiguous, read-only. The row of a failed text is NaN.
        model: Name of the model as the server gave it.
        usage: What the call took.
        cost: US dollars, by the model's price; None if the price is unknown.
        cached: How many of the texts were not bought by this call: found in the cache, or bought by a call beside it.
        failed: What went wrong, by position; empty unless ``on_error="keep"``.
        matryoshka: How the vectors may be shortened.
    """

    array: npt.NDArray[np.float32]
    model: str
    usage: Usage = field(default_factory=Usage)
    cost: Decimal | None = None
    cached: int = 0
    failed: Mapping[int, VoxvecError] = field(default_factory=lambda: MappingProxyType({}))
    matryoshka: Matryoshka = "none"

    def __post_init__(self) -> None:
        array = np.ascontiguousarray(self.array, dtype=np.float32)
        if array.ndim != 2:  # noqa: PLR2004 -- a matrix
            raise InputError(f"embeddings are a matrix of shape (n, dims), not of shape {array.shape}")
        array = array.view()
        array.flags.writeable = False
        object.__setattr__(self, "array", array)
        object.__setattr__(self, "failed", MappingProxyType(dict(self.failed)))

    @property
    def dims(self) -> int:
        """Length of every vector."""
        return int(self.array.shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        """Number of vectors and their length."""
        return len(self), self.dims

    def __len__(self) -> int:
        return int(self.array.shape[0])

    @overload
    def __getitem__(self, item: SupportsIndex) -> npt.NDArray[np.float32]: ...
    @overload
    def __getitem__(self, item: slice) -> npt.NDArray[np.float32]: ...
    def __getitem__(self, item: SupportsIndex | slice) -> npt.NDArray[np.float32]:
        """One vector, shape ``(dims,)``, or a slice of the matrix, shape ``(m, dims)``; views, read-only."""
        return self.array[item]

    def __iter__(self) -> Iterator[npt.NDArray[np.float32]]:
        return iter(self.array)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:  # noqa: FBT001 -- NumPy's signature
        # NumPy before 2.0 knows no copy=None, and never passes it.
        return np.asarray(self.array, dtype) if copy is None else np.array(self.array, dtype, copy=copy)

    def __eq__(self, other: object) -> bool:
        """Whether model and vectors are the same, bit for bit; what they cost does not count."""
        if not isinstance(other, Embeddings):
            return NotImplemented
        return self.model == other.model and self.array.tobytes() == other.array.tobytes() and self.shape == other.shape

    __hash__ = None  # type: ignore[assignment]  # equal matrices would have to be read in full

    def __repr__(self) -> str:
        cost = "unknown" if self.cost is None else f"${self.cost:f}"
        return (
            f"Embeddings(shape={self.shape}, model={self.model!r}, tokens={self.usage.tokens}, cost={cost}, "
            f"cached={self.cached}, failed={len(self.failed)})"
        )

    def tolist(self) -> list[list[float]]:
        """The vectors as lists of Python floats, about ten times the memory."""
        lists: list[list[float]] = self.array.tolist()
        return lists

    def shrink(self, dims: int) -> Embeddings:
        """Shorter vectors of unit length, without a second call.

        Args:
            dims: Length to cut to, from 1 to the present one.

        Raises:
            ConfigError: The model was not trained to be shortened, or the vectors are not that long.

        Source:
            Kusupati et al., *Matryoshka Representation Learning* (NeurIPS 2022), arXiv:2205.13147.
        """
        if dims == self.dims:
            return self
        if self.matryoshka == "none":
            raise ConfigError(
                f"vectors of {self.model} cannot be shortened: cutting would destroy them, because the model was not "
                "trained for it. Use a Matryoshka model, or reduce them by PCA on your own data"
            )
        there = [position for position in range(len(self)) if position not in self.failed]
        cut = truncate(self.array[there], dims, layer_norm=self.matryoshka == "layernorm_prefix")
        array = np.full((len(self), dims), np.nan, np.float32)
        array[there] = cut
        kept: Matryoshka = "none" if self.matryoshka == "layernorm_prefix" else self.matryoshka
        return Embeddings(
            array=array,
            model=self.model,
            usage=self.usage,
            cost=self.cost,
            cached=self.cached,
            failed=self.failed,
            matryoshka=kept,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to an ``.npz`` file that `load`, or plain `numpy.load`, reads; nothing in it is pickled.

        The file is written whole or not at all: until it is, what was there before stays.

        Raises:
            ConfigError: The name does not end in ``.npz``.
            InputError: Some texts failed; their errors cannot be kept in the file.
            OSError: The file cannot be written; the error names it.
        """
        if not os.fspath(path).endswith(".npz"):
            raise ConfigError(f"embeddings are saved as .npz, and {os.fspath(path)!r} ends in something else")
        if self.failed:
            raise InputError(
                "embeddings with failed texts are not saved: run again for the rest", positions=sorted(self.failed)
            )
        about = {
            "format": _FORMAT,
            "model": self.model,
            "usage": asdict(self.usage),
            "cost": None if self.cost is None else str(self.cost),
            "cached": self.cached,
            "matryoshka": self.matryoshka,
        }
        with _replacing(Path(path)) as file:
            np.savez(file, array=self.array, about=np.array(json.dumps(about)))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Embeddings:
        """Read what `save` wrote.

        Raises:
            InputError: The file holds something else.
        """
        try:
            # Opened here, because NumPy leaves files open that it cannot read.
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as data:  # noqa: PTH123 -- as in save
                array, about = data["array"], _about(str(data["about"]))
            return cls(
                array=array,
                model=about["model"],
                usage=Usage(**about["usage"]),
                cost=None if about["cost"] is None else Decimal(about["cost"]),
                cached=about["cached"],
                matryoshka=about["matryoshka"],
            )
        except FileNotFoundError:
            raise
        except _DAMAGE as error:
            raise InputError(f"{path} does not hold saved embeddings ({type(error).__name__}: {error})") from None

    def __reduce__(self) -> tuple[Any, ...]:
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return _rebuild, ({**values, "failed": dict(self.failed)},)


@contextmanager
def _replacing(target: Path) -> Generator[IO[bytes]]:
    """A file beside the target that takes its place once it is whole and on the disk."""
    # Not tempfile: its files are private, and this one should get the usual rights.
    draft = target.with_name(f".{secrets.token_hex(8)}.npz")
    try:
        with draft.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    except OSError as error:
        raise type(error)(error.errno, error.strerror or str(error), str(target)) from None
    finally:
        draft.unlink(missing_ok=True)


def _about(text: str) -> dict[str, Any]:
    about: dict[str, Any] = json.loads(text)
    if about["format"] != _FORMAT:
        raise ValueError(f"it has format {about['format']!r}, this version reads {_FORMAT}")
    return about


def _rebuild(values: dict[str, Any]) -> Embeddings:
    return Embeddings(**values)

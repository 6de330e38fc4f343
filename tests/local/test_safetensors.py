import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from voxvec.local.safetensors import parse


def pack(header, numbers=b""):
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + numbers


def written(arrays):
    header, numbers = {"__metadata__": {"format": "pt"}}, b""
    for name, array in arrays.items():
        kind = {"float32": "F32", "float16": "F16", "int64": "I64"}[array.dtype.name]
        ends = [len(numbers), len(numbers) + array.nbytes]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": ends}
        numbers += array.tobytes()
    return pack(header, numbers)


arrays = st.one_of(
    hnp.arrays(
        dtype,
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0),
        elements={"allow_nan": False} if "f" in dtype else None,
    )
    for dtype in ("<f4", "<f2", "<i8")
)


@given(st.dictionaries(st.text(max_size=8).filter(lambda name: name != "__metadata__"), arrays, max_size=4))
def test_what_was_written_is_read(tensors):
    got = parse(written(tensors))

    assert got.keys() == tensors.keys()
    for name, array in tensors.items():
        assert got[name].dtype == array.dtype
        assert np.array_equal(got[name], array)
        assert not got[name].flags.writeable


@given(st.binary(max_size=80))
def test_arbitrary_bytes_are_weights_or_a_value_error(data):
    for raw in (data, len(data).to_bytes(8, "little") + data):
        try:
            parse(raw)
        except ValueError:
            continue


@pytest.mark.parametrize(
    "entry",
    [
        None,
        {},
        {"dtype": "F8", "shape": [1], "data_offsets": [0, 1]},
        {"dtype": "F32", "shape": 1, "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]},
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]},
        {"dtype": "F32", "shape": [1], "data_offsets": [6, 10]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]},
    ],
)
def test_a_description_that_cannot_be_is_refused_by_name(entry):
    with pytest.raises(ValueError, match="'w' is described"):
        parse(pack({"w": entry}, bytes(8)))


@pytest.mark.parametrize("data", [b"", b"\x01", (9).to_bytes(8, "little"), pack([1]), b"\x02" + bytes(7) + b"{]"])
def test_a_header_that_cannot_be_is_refused(data):
    with pytest.raises(ValueError, match="header"):
        parse(data)

import array
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxvec.rows import KEY_BYTES, Kind, pack, unpack, width_of

KEY = bytes(range(32))
GOLDEN = bytes.fromhex(
    "76767277 01 01 0600 02000000 07000000"
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
    "6d6f64656c31 0000"
    "0000803f 000000c0"
    "b0b685f1"
)
keys = st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES)
token_counts = st.none() | st.integers(0, 2**32 - 2)
names = st.text(st.characters(), max_size=40)


@st.composite
def rows(draw):
    kind = draw(st.sampled_from(Kind))
    width = draw(st.integers(0, 40))
    size = width * 4 if kind is Kind.VECTOR else width
    payload = draw(st.binary(min_size=size, max_size=size))
    return draw(keys), payload, kind, width, draw(token_counts), draw(names)


def packed(row):
    key, payload, kind, width, tokens, model = row
    return pack(key, payload, kind=kind, width=width, tokens=tokens, model=model)


@given(rows())
def test_what_was_packed_is_unpacked(row):
    key, payload, *rest = row
    blob = packed(row)

    found = unpack(key, blob)

    assert found is not None
    assert [found.kind, found.width, found.tokens, found.model] == rest
    assert found.payload == payload
    assert width_of(blob) == found.width


def test_a_row_of_version_1_stays_readable():
    row = unpack(KEY, GOLDEN)

    assert row is not None
    assert (row.kind, row.width, row.tokens, row.model) == (Kind.VECTOR, 2, 7, "model1")
    assert struct.unpack("<2f", row.payload) == (1.0, -2.0)


def test_a_row_of_version_1_is_still_written_the_same_way():
    payload = struct.pack("<2f", 1.0, -2.0)

    assert pack(KEY, payload, kind=Kind.VECTOR, width=2, tokens=7, model="model1") == GOLDEN


@pytest.mark.case("C08")
@given(rows(), st.data())
def test_a_flipped_bit_makes_no_row(row, data):
    blob = bytearray(packed(row))
    bit = data.draw(st.integers(0, len(blob) * 8 - 1))
    blob[bit // 8] ^= 1 << bit % 8

    assert unpack(row[0], bytes(blob)) is None


@given(rows(), st.data())
def test_a_row_cut_short_or_grown_is_no_row(row, data):
    blob = packed(row)

    assert unpack(row[0], blob[: data.draw(st.integers(0, len(blob) - 1))]) is None
    assert unpack(row[0], blob + data.draw(st.binary(min_size=1, max_size=9))) is None


@pytest.mark.case("C28")
@given(rows(), keys)
def test_another_keys_row_is_no_row(row, key):
    assert (unpack(key, packed(row)) is None) == (key != row[0])


@pytest.mark.case("C28")
@given(keys, st.binary(max_size=200))
def test_random_bytes_are_no_row_and_have_no_width(key, blob):
    assert unpack(key, blob) is None
    assert width_of(blob) == 0


def forged(**changes):
    """A row whose checksum is right, though what it says may be impossible."""
    import zlib  # noqa: PLC0415 -- only a forger needs it

    fields = {"magic": b"vvrw", "version": 1, "kind": 1, "name": 6, "width": 2, "tokens": 7, "key": KEY} | changes
    rest = fields.pop("rest", b"model1\0\0" + bytes(8))
    body = struct.pack("<4sBBHII32s", *fields.values()) + rest
    return body + struct.pack("<I", zlib.crc32(body))


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "version": st.integers(0, 255),
            "kind": st.integers(0, 255),
            "name": st.integers(0, 2**16 - 1),
            "width": st.integers(0, 2**32 - 1),
            "tokens": st.integers(0, 2**32 - 1),
            "rest": st.binary(max_size=40),
        },
    )
)
def test_a_forged_row_is_read_as_it_says_or_not_at_all(changes):
    row = unpack(KEY, forged(**changes))

    if row is not None:
        assert changes.get("version", 1) == 1
        assert row.kind == changes.get("kind", 1)
        assert row.payload.nbytes == row.width * (4 if row.kind is Kind.VECTOR else 1)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"version": 2}, id="later-version"),
        pytest.param({"magic": b"vvrx"}, id="other-magic"),
        pytest.param({"kind": 3}, id="unknown-kind"),
        pytest.param({"width": 3}, id="wider-than-payload"),
        pytest.param({"name": 60_000}, id="name-longer-than-row"),
        pytest.param({"rest": b"\xff\xfe\xff\xff\xff\xff\0\0" + bytes(8)}, id="name-no-utf-8"),
    ],
)
def test_a_whole_row_that_makes_no_sense_is_no_row(changes):
    assert unpack(KEY, forged()) is not None
    assert unpack(KEY, forged(**changes)) is None


@pytest.mark.parametrize("name", ["", "a", "12345678", "모델", "\ud800"])
def test_a_payload_begins_where_numbers_may(name):
    blob = pack(KEY, bytes(8), kind=Kind.VECTOR, width=2, tokens=None, model=name)
    row = unpack(KEY, blob)

    assert row is not None
    assert row.model == name
    assert (len(blob) - 4 - 8) % 8 == 0


def test_a_payload_is_a_read_only_view_of_the_row():
    blob = pack(KEY, b"[1]", kind=Kind.DOCUMENT, width=3, tokens=None, model="m")
    row = unpack(KEY, blob)

    assert row is not None
    assert row.payload.readonly
    assert row.payload.obj is blob
    assert row.tokens is None


def test_a_view_of_numbers_is_packed_like_its_bytes():
    numbers = array.array("f", [1.0, -2.0])

    assert pack(KEY, memoryview(numbers), kind=Kind.VECTOR, width=2, tokens=7, model="model1") == GOLDEN


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"key": b"short"}, "a key has 32 bytes, not 5", id="key"),
        pytest.param({"width": 3}, "a vector of width 3 cannot have 8 bytes", id="width"),
        pytest.param({"kind": Kind.DOCUMENT}, "a document of width 2 cannot have 8 bytes", id="kind"),
        pytest.param({"width": -2}, "of width -2", id="negative-width"),
        pytest.param({"tokens": -1}, "tokens must be from 0", id="negative-tokens"),
        pytest.param({"tokens": 2**32 - 1}, "tokens must be from 0", id="tokens-that-mean-unknown"),
        pytest.param({"model": "m" * 65_536}, "at most 65535 bytes", id="endless-name"),
    ],
)
def test_what_cannot_be_a_row_is_not_packed(changes, says):
    fields = {"key": KEY, "payload": bytes(8), "kind": Kind.VECTOR, "width": 2, "tokens": 1, "model": "m"} | changes

    with pytest.raises(ValueError, match=says):
        pack(fields.pop("key"), fields.pop("payload"), **fields)

from contextlib import suppress

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxvec.local.forms import Form, parse

names = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=9)


def sent_by_httpx(fields, files):
    request = httpx2.Request("POST", "http://x/", data=fields, files=files)
    return request.headers["content-type"], request.read()


@given(st.dictionaries(names, st.text(max_size=20), max_size=4), names, st.binary(max_size=300))
def test_what_httpx_sends_arrives_byte_for_byte(fields, name, data):
    form = parse(*sent_by_httpx(fields, {"file": (name, data)}))

    assert dict(form.fields) == fields
    assert form.files["file"].data == data
    assert form.files["file"].name == name


@given(st.binary(max_size=200), st.text(max_size=60))
def test_arbitrary_bytes_are_a_form_or_a_value_error(body, content_type):
    for header in (content_type, "multipart/form-data; boundary=b"):
        try:
            assert isinstance(parse(header, body), Form)
        except ValueError:
            continue


@given(
    st.lists(st.sampled_from([b"--b", b"\r\n", b"--", b'Content-Disposition: form-data; name="n"', b"\r\n\r\n", b"x"]))
)
def test_any_pile_of_boundaries_is_a_form_or_a_value_error(pieces):
    with suppress(ValueError):
        assert isinstance(parse("multipart/form-data; boundary=b", b"".join(pieces)), Form)


def test_a_field_may_come_more_than_once_and_with_brackets():
    form = Form((("languages[]", "en"), ("languages[]", "de"), ("model", "m")), {})

    assert form.all("languages") == ["en", "de"]
    assert form.get("model") == "m"
    assert form.get("prompt") is None


def test_an_upload_with_a_name_in_another_script_keeps_it():
    body = b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename*=UTF-8''%C3%A9.wav\r\n\r\nx\r\n--b--\r\n"

    assert parse("multipart/form-data; boundary=b", body).files["file"].name == "é.wav"


@pytest.mark.parametrize(
    ("content_type", "body", "says"),
    [
        ("application/json", b"{}", "must be multipart"),
        ("multipart/form-data", b"", "boundary"),
        ("multipart/form-data; boundary=b", b"--b\r\n", "cut off"),
        ("multipart/form-data; boundary=b", b"--b\r\nX: y\r\n\r\n1\r\n--b--", "no Content-Disposition"),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data\r\n\r\n1\r\n--b--", "no name"),
    ],
)
def test_what_is_no_form_is_named(content_type, body, says):
    with pytest.raises(ValueError, match=says):
        parse(content_type, body)

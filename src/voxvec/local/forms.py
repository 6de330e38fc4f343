"""``multipart/form-data`` as bytes, both ways of looking at it: fields and files.

Pure. Written because the standard library's parsers decode what they should leave alone:
an upload has to arrive byte for byte.

Source:
    RFC 7578, RFC 2046 §5.1.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from email.message import Message
from email.utils import collapse_rfc2231_value

__all__ = ["Form", "Upload", "parse"]


@dataclass(frozen=True, slots=True)
class Upload:
    """One uploaded file."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Form:
    """What was sent, in its order.

    Attributes:
        fields: Names and values; a name may come more than once.
        files: Uploads by field name; of several under one name, the last.
    """

    fields: tuple[tuple[str, str], ...]
    files: dict[str, Upload]

    def get(self, name: str) -> str | None:
        """The last value under a name."""
        values = self.all(name)
        return values[-1] if values else None

    def all(self, name: str) -> list[str]:
        """Every value under a name, or under the name with ``[]`` after it."""
        return [value for key, value in self.fields if key in {name, f"{name}[]"}]


def parse(content_type: str, body: bytes) -> Form:
    """Take a body apart.

    Args:
        content_type: Value of the header, with its ``boundary``.
        body: What was sent.

    Raises:
        ValueError: It is no such form, or it was cut off.
    """
    header = _header(content_type)
    boundary = header.get_param("boundary")
    if header.get_content_type() != "multipart/form-data" or not isinstance(boundary, str) or not boundary:
        raise ValueError("the body must be multipart/form-data with a boundary")
    fields: list[tuple[str, str]] = []
    files: dict[str, Upload] = {}
    for part in _parts(body, b"\r\n--" + boundary.encode("latin-1", "replace")):
        name, file_name, data = _part(part)
        if file_name is None:
            fields.append((name, data.decode("utf-8", "replace")))
        else:
            files[name] = Upload(file_name, data)
    return Form(tuple(fields), files)


def _parts(body: bytes, delimiter: bytes) -> list[bytes]:
    # The first delimiter may open the body; put a line break there, so that all look alike.
    _, *parts = (b"\r\n" + body).split(delimiter)
    if not parts or not parts[-1].startswith(b"--"):
        raise ValueError("the form is cut off: its closing boundary is missing")
    return parts[:-1]


def _part(part: bytes) -> tuple[str, str | None, bytes]:
    head, found, data = part.partition(b"\r\n\r\n")
    lines = head.decode("utf-8", "replace").split("\r\n")
    disposition = next((line for line in lines if line.lower().startswith("content-disposition:")), None)
    if not found or disposition is None:
        raise ValueError("a part of the form has no Content-Disposition")
    header = _header(disposition.partition(":")[2])
    name, file_name = header.get_param("name"), header.get_param("filename")
    if not isinstance(name, str):
        raise ValueError("a part of the form has no name")  # noqa: TRY004 -- it is the value that is wrong
    return name, _text(file_name), data


def _text(value: str | tuple[str | None, str | None, str] | None) -> str | None:
    return collapse_rfc2231_value(value) if isinstance(value, tuple) else value


def _header(value: str) -> Message:
    message = Message()
    message["content-type"] = value.strip()
    return message

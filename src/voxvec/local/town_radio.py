"""The bundled recording: a town radio with six short stories, spoken by ``flite``.

Knows what is said when, and three questions with the line that answers each, so that a
demonstration can be checked without listening.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

__all__ = ["Demo", "Line", "Question", "load"]


@dataclass(frozen=True, slots=True)
class Line:
    """What is said from ``start`` to ``end`` [s]."""

    text: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Question:
    """A question, and the position of the line that answers it."""

    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Demo:
    """The recording and what is known about it.

    Attributes:
        name: Name of the file.
        audio: The file: WAV, 16 bits, mono, 16 kHz.
        lines: What is said, in order.
        questions: What can be asked about it.
    """

    name: str
    audio: bytes
    lines: tuple[Line, ...]
    questions: tuple[Question, ...]


def load() -> Demo:
    """Read it from the package."""
    folder = resources.files("voxvec.local") / "demo"
    table: dict[str, Any] = json.loads((folder / "town-radio.json").read_text("utf-8"))
    return Demo(
        "town-radio.wav",
        (folder / "town-radio.wav").read_bytes(),
        tuple(Line(**line) for line in table["lines"]),
        tuple(Question(**question) for question in table["questions"]),
    )

"""Audio → text: what can be asked of a model, what came back, and how it is written down."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from voxvec.transcription.cues import Style
    from voxvec.transcription.subtitles import Cue
    from voxvec.transcription.transcriber import AsyncTranscriber, Transcriber
    from voxvec.transcription.transcript import Segment, Transcript, Word

__all__ = ["AsyncTranscriber", "Cue", "Segment", "Style", "Transcriber", "Transcript", "Word"]

_HOMES = {
    "AsyncTranscriber": "transcriber",
    "Cue": "subtitles",
    "Segment": "transcript",
    "Style": "cues",
    "Transcriber": "transcriber",
    "Transcript": "transcript",
    "Word": "transcript",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__

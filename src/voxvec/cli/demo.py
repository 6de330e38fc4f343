"""``voxvec demo``: a recording is heard, its segments become vectors, and questions find the segment that answers."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

import voxvec as vv
from voxvec.cli import passages, screen
from voxvec.cli.backend import Backend
from voxvec.cli.bill import Bill
from voxvec.cli.options import AsJson, NoCache
from voxvec.errors import AudioError
from voxvec.local import weights

__all__ = ["demo"]


@dataclass(frozen=True, slots=True)
class _Answer:
    """A question, the segment that fits it best, and how much better than the next one."""

    question: str
    best: "vv.Hit[vv.Segment]"
    runner_up: float | None

    def as_json(self) -> dict[str, screen.Json]:
        segment = self.best.item
        return {
            "question": self.question,
            "segment": self.best.position,
            "start": segment.start,
            "end": segment.end,
            "text": segment.text,
            "score": self.best.score,
            "runner_up": self.runner_up,
        }

    def __str__(self) -> str:
        behind = "" if self.runner_up is None else f", next best {self.runner_up:.2f}"
        return f"{self.question}  [score {self.best.score:.2f}{behind}]\n{_line(self.best.item)}"


def demo(
    *,
    audio: Annotated[
        Path | None,
        typer.Option(metavar="FILE", show_default=False, help="Your own recording; else a bundled one, in English."),
    ] = None,
    ask: Annotated[
        list[str] | None, typer.Option(metavar="QUESTION", show_default=False, help="Your own question; repeatable.")
    ] = None,
    online: Annotated[
        bool, typer.Option("--online", help="Use OPENAI_API_KEY, and pay; by default nothing leaves this machine.")
    ] = False,
    no_cache: NoCache = False,
    as_json: AsJson = False,
) -> None:
    """Hear a recording and answer questions about it."""
    name, recording, questions = _material(audio, ask)
    for question in questions:
        passages.check(question)
    backend = Backend(keep=not no_cache, keyless=not online)
    with backend.embedder() as embedder, backend.transcriber() as transcriber:
        known = not embedder.plan(questions, input_type="query").requests and transcriber.plan(recording).cached
        if not online and not known:
            weights.find()  # hearing a recording takes long; whatever is missing is told before
        # First, because it tells in a second whether the server answers at all.
        asked = embedder.embed(questions, input_type="query")
        transcript = transcriber.transcribe(recording)
        segments = [segment for segment in transcript.segments if segment.text.strip()]
        if not segments:
            raise AudioError(f"no speech was recognised in {name}, so nothing can be found in it")
        vectors = embedder.embed([segment.text for segment in segments], input_type="document")
    answers = _answers(questions, asked, vv.Index(vectors, items=segments))
    bill = Bill.of_transcript(transcript) + Bill.of_vectors(vectors) + Bill.of_vectors(asked)
    for warning in transcript.warnings:
        screen.say(f"{name}: {warning}")
    if as_json:
        _show_json(transcript, vectors, answers, bill)
    else:
        _show(name, transcript, vectors, answers, bill)


def _material(audio: Path | None, ask: list[str] | None) -> tuple[str, Path | bytes, list[str]]:
    """Name of the recording, the recording, and what to ask about it."""
    if audio is not None:
        if not ask:
            raise typer.BadParameter("a recording of your own needs a question: --ask 'Who won?'", param_hint="--audio")
        return str(audio), audio, ask
    bundled = vv.local.demo_recording()
    return bundled.name, bundled.audio, ask or [question.text for question in bundled.questions]


def _answers(questions: Sequence[str], asked: "vv.Embeddings", index: "vv.Index[vv.Segment]") -> list[_Answer]:
    found = (index.search(vector, 2) for vector in asked)
    return [
        _Answer(question, hits[0], hits[1].score if len(hits) > 1 else None)
        for question, hits in zip(questions, found, strict=True)
    ]


def _line(segment: "vv.Segment") -> str:
    about = "~" if segment.timing == "estimated" else " "
    times = f"{about}{screen.clock(segment.start)} -{about}{screen.clock(segment.end)}"
    return f" {times}  {screen.visible(segment.text)}"


def _show(
    name: str, transcript: "vv.Transcript", vectors: "vv.Embeddings", answers: Sequence[_Answer], bill: Bill
) -> None:
    out = io.StringIO()
    length = "" if transcript.duration is None else f", {transcript.duration:.1f} s"
    out.write(f"{name}{length}; heard by {transcript.model}, embedded by {vectors.model}\n\n")
    out.writelines(f"{_line(segment)}\n" for segment in transcript.segments)
    out.writelines(f"\n{answer}\n" for answer in answers)
    out.write(f"\n{bill}\n")
    if not bill.requests:
        out.write("Everything was in the cache, so nothing had to be asked.\n")
    screen.show(out.getvalue())


def _show_json(transcript: "vv.Transcript", vectors: "vv.Embeddings", answers: Sequence[_Answer], bill: Bill) -> None:
    segments: list[screen.Json] = [
        {"start": segment.start, "end": segment.end, "timing": segment.timing, "text": segment.text}
        for segment in transcript.segments
    ]
    screen.show_json(
        {
            "transcription_model": transcript.model,
            "embedding_model": vectors.model,
            "duration": transcript.duration,
            "segments": segments,
            "answers": [answer.as_json() for answer in answers],
            **bill.as_json(),
        }
    )

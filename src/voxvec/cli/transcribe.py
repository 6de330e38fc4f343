"""``voxvec transcribe`` and ``voxvec translate``: recordings in, texts and subtitles out."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

import voxvec as vv
from voxvec.cli import failures, files, passages, screen
from voxvec.cli.backend import Backend
from voxvec.cli.bill import Bill
from voxvec.cli.options import AsJson, NoCache
from voxvec.errors import ConfigError, VoxvecError

__all__ = ["Format", "transcribe", "translate"]

_AT_ONCE = 4

Outcome: TypeAlias = "vv.Transcript | VoxvecError"


class Format(StrEnum):
    """What a transcript can be written as."""

    TXT = "txt"
    SRT = "srt"
    VTT = "vtt"
    TSV = "tsv"
    MD = "md"
    JSON = "json"


Recordings = Annotated[
    list[Path], typer.Argument(metavar="FILE", show_default=False, help="Recordings; - is one that comes from stdin.")
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", show_default=False, help="File to write, or for several recordings a folder that exists."
    ),
]
Kind = Annotated[
    Format | None,
    typer.Option("--format", show_default=False, help="By default what the name of the output ends in, or else txt."),
]
AllowEstimated = Annotated[
    bool, typer.Option("--allow-estimated", help="Make subtitles even of times that nobody measured.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """What to make of the transcripts, and where to put it."""

    files: list[Path]
    format: Format
    output: Path | None
    allow_estimated: bool
    as_json: bool

    def target(self, file: Path) -> Path | None:
        """File that the transcript of a recording goes to; None for stdout."""
        if self.output is None or not self.output.is_dir():
            return self.output
        return self.output / f"{'stdin' if str(file) == '-' else file.stem}.{self.format}"

    def check(self) -> None:
        """Refuse what would lose or mix up results, before anything is sent."""
        several = len(self.files) > 1
        if several and self.output is not None and not self.output.is_dir():
            raise typer.BadParameter("for several recordings it must be a folder that exists", param_hint="--output")
        if several and self.output is None and self.format is not Format.TXT and not self.as_json:
            raise typer.BadParameter(f"for several recordings in {self.format} name a folder", param_hint="--output")
        targets = [target for file in self.files if (target := self.target(file)) is not None]
        if several and len(set(targets)) < len(targets):
            raise typer.BadParameter("two recordings have the same name, and would share a file", param_hint="--output")
        if taken := {target.resolve() for target in targets} & {file.resolve() for file in self.files}:
            raise typer.BadParameter(f"{min(taken)} is the recording itself", param_hint="--output")
        for target in targets:
            files.check(target)


def transcribe(
    recordings: Recordings,
    *,
    language: Annotated[
        str | None, typer.Option(show_default=False, help="Spoken language: Korean, ko or ko-KR; else it is detected.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            show_default=False, help="By default gpt-transcribe. Without OPENAI_API_KEY it is pocketsphinx-en-us."
        ),
    ] = None,
    format: Kind = None,  # noqa: A002 -- the option's name
    output: Output = None,
    allow_estimated: AllowEstimated = False,
    no_cache: NoCache = False,
    as_json: AsJson = False,
) -> None:
    """Turn recordings into text or subtitles."""
    wish = _wish(recordings, format, output, allow_estimated=allow_estimated, as_json=as_json)
    with Backend(keep=not no_cache).transcriber(model) as client:
        _run(lambda recording: client.transcribe(recording, language=language), wish)


def translate(
    recordings: Recordings,
    *,
    model: Annotated[
        str | None, typer.Option(show_default=False, help="By default whisper-1; every model for this needs a key.")
    ] = None,
    format: Kind = None,  # noqa: A002 -- the option's name
    output: Output = None,
    allow_estimated: AllowEstimated = False,
    no_cache: NoCache = False,
    as_json: AsJson = False,
) -> None:
    """Turn recordings in any language into English text."""
    wish = _wish(recordings, format, output, allow_estimated=allow_estimated, as_json=as_json)
    with Backend(keep=not no_cache).translator(model) as client:
        _run(client.translate, wish)


def _wish(
    recordings: list[Path], format_: Format | None, output: Path | None, *, allow_estimated: bool, as_json: bool
) -> _Wish:
    wish = _Wish(
        files=recordings,
        format=_format(format_, output),
        output=output,
        allow_estimated=allow_estimated,
        as_json=as_json,
    )
    wish.check()
    return wish


def _format(wanted: Format | None, output: Path | None) -> Format:
    if output is None or output.is_dir():
        return wanted or Format.TXT
    suffix = output.suffix.lower().removeprefix(".")
    if suffix in set(Format):
        if wanted not in {None, suffix}:
            raise typer.BadParameter(f"{wanted} does not go into a file named {output.name}", param_hint="--format")
        return Format(suffix)
    if wanted is None:
        raise typer.BadParameter(
            f"end the name of {output.name} in .srt, .vtt, .tsv, .md, .txt or .json, or say --format",
            param_hint="--output",
        )
    return wanted


def _run(ask: "Callable[[Path | bytes], vv.Transcript]", wish: _Wish) -> None:
    """Ask about every recording, and hand each answer over as it comes."""
    bill, done, failed = Bill(), dict[str, vv.Transcript](), dict[str, VoxvecError]()
    on_screen = wish.output is None and sys.stdout.isatty()
    with screen.progress("recordings", len(wish.files), hidden=on_screen) as tell:
        for number, (file, outcome) in enumerate(_outcomes(wish.files, ask), start=1):
            if isinstance(outcome, VoxvecError):
                failed[str(file)] = outcome
                screen.say(failures.about(str(file), outcome))
            else:
                bill += Bill.of_transcript(outcome)
                done[str(file)] = outcome
                _hand_over(file, outcome, wish)
            tell(number, len(wish.files))
    if wish.as_json:
        screen.show_json({**_as_json(wish, done, failed), **bill.as_json()})
    elif done:
        screen.say(str(bill))
    if failed:
        raise typer.Exit(1)


def _outcomes(recordings: list[Path], ask: "Callable[[Path | bytes], vv.Transcript]") -> Iterator[tuple[Path, Outcome]]:
    from voxvec._threads import in_order  # noqa: PLC0415 -- imports what help and wrong usage do not need

    def attempt(file: Path) -> Outcome:
        try:
            return ask(passages.recording(file))
        except failures.HOPELESS:
            raise
        except VoxvecError as error:
            return error

    return zip(recordings, in_order(recordings, attempt, _AT_ONCE), strict=True)


def _hand_over(file: Path, transcript: "vv.Transcript", wish: _Wish) -> None:
    for warning in transcript.warnings:
        screen.say(f"{file}: {warning}")
    target = wish.target(file)
    if target is None and wish.as_json:
        return
    if any(segment.timing == "estimated" for segment in transcript.segments):
        _check_times(wish, transcript.model)
    text = _render(transcript, wish)
    if target is not None:
        with files.replacing(target) as draft:
            draft.write_bytes(text.encode())
    else:
        screen.show(f"==> {file} <==\n{text}" if len(wish.files) > 1 else text)


def _check_times(wish: _Wish, model: str) -> None:
    if wish.format in {Format.SRT, Format.VTT} and not wish.allow_estimated:
        raise ConfigError(
            f"{model} gave no times and no speech was found in the recording by itself, so subtitles would only be "
            "estimated; take a --model with segment times (see: voxvec models), or say --allow-estimated. "
            "The text is in the cache, unless that is switched off"
        )


def _render(transcript: "vv.Transcript", wish: _Wish) -> str:
    match wish.format:
        case Format.TXT:
            return transcript.to_txt()
        case Format.JSON:
            return transcript.to_json()
        case Format.TSV:
            return transcript.to_tsv()
        case Format.MD:
            return transcript.to_md()
        case Format.SRT:
            return transcript.to_srt(allow_estimated=wish.allow_estimated)
        case Format.VTT:
            return transcript.to_vtt(allow_estimated=wish.allow_estimated)


def _as_json(wish: _Wish, done: "dict[str, vv.Transcript]", failed: dict[str, VoxvecError]) -> dict[str, screen.Json]:
    return {
        "transcripts": [
            {"file": file, "output": _name(wish.target(Path(file))), **json.loads(transcript.to_json())}
            for file, transcript in done.items()
        ],
        "failed": failures.as_json(failed),
    }


def _name(target: Path | None) -> str | None:
    return None if target is None else str(target)

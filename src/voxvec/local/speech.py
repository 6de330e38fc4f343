"""The speech half of the responder: what an upload must look like, and how its text is served.

Pure. The shapes are those that each model really has: ``verbose_json`` with segments and
words, ``diarized_json`` with speakers, ``json`` with tokens or seconds.
"""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING, Any, Final

from voxvec.local import forms
from voxvec.local.brain import Recording
from voxvec.local.exchange import Refusal, Reply, json_reply

if TYPE_CHECKING:
    from collections.abc import Iterable

    from voxvec.local.brain import Heard, HeardSegment, HeardWord
    from voxvec.local.exchange import Request
    from voxvec.local.forms import Form
    from voxvec.models import TranscriptionModel

__all__ = ["form", "recording", "reply", "wanted_format"]

_ENDINGS: Final = ("flac", "m4a", "mp3", "mp4", "mpeg", "mpga", "oga", "ogg", "wav", "webm")
_FORMATS: Final = ("json", "text", "verbose_json", "diarized_json", "srt", "vtt")
_LONGEST_UNCUT: Final = 30.0


def form(request: Request) -> Form:
    """The fields and files of an upload.

    Raises:
        Refusal: The body is not ``multipart/form-data``.
    """
    try:
        return forms.parse(request.headers.get("content-type", ""), request.body)
    except ValueError as error:
        raise Refusal(f"Could not parse multipart form: {error}.") from None


def recording(sent: Form, model: TranscriptionModel, *, translate: bool) -> Recording:
    """The uploaded recording, if the model can take it with these wishes.

    Raises:
        Refusal: There is none, it is too large or of no known kind, or a wish cannot be met.
    """
    upload = sent.files.get("file")
    if upload is None:
        raise Refusal("Missing required parameter: 'file'.", param="file", code="missing_required_parameter")
    if model.max_bytes is not None and len(upload.data) > model.max_bytes:
        message = f"Maximum content size limit ({model.max_bytes}) exceeded ({len(upload.data)} bytes read)"
        raise Refusal(message, status=413, type="server_error")
    if upload.name.rpartition(".")[2].lower() not in _ENDINGS:
        raise Refusal(f"Unrecognized file format. Supported formats: {list(_ENDINGS)}", param="file")
    if translate and not model.translates:
        raise Refusal(
            f"The model `{model.name}` does not support translation.", param="model", code="unsupported_model"
        )
    _check_wishes(sent, model)
    return Recording(upload.data, upload.name, sent, translate)


def _check_wishes(sent: Form, model: TranscriptionModel) -> None:
    parameter = "languages" if model.language_parameter == "languages" else "language"
    for code in sent.all(parameter):
        if model.languages is not None and code not in model.languages:
            raise Refusal(f"Language '{code}' is not supported.", param=parameter, code="invalid_value")
    for keyword in sent.all("keywords") if model.keywords else ():
        if not keyword or any(character in keyword for character in "<>\r\n"):
            message = "Keywords must be single lines without '<' and '>'."
            raise Refusal(message, param="keywords", code="invalid_value")
    if model.streaming and sent.get("stream") == "true":
        raise Refusal("Streaming is not offered by this server.", param="stream", code="unsupported_value")


def wanted_format(sent: Form, model: TranscriptionModel) -> str:
    """The value of ``response_format``, if the model honours it.

    Raises:
        Refusal: It does not, or word times are asked for in a format that has none.
    """
    wanted = sent.get("response_format") or "json"
    if wanted not in model.formats or wanted not in _FORMATS:
        message = f"response_format '{wanted}' is not compatible with model '{model.name}'. "
        takes = " or ".join(f"'{name}'" for name in model.formats)
        raise Refusal(f"{message}Use {takes} instead.", param="response_format", code="unsupported_value")
    if sent.all("timestamp_granularities") and wanted != "verbose_json":
        message = "timestamp_granularities needs response_format 'verbose_json'."
        raise Refusal(message, param="timestamp_granularities", code="invalid_value")
    return wanted


def reply(heard: Heard, asked: Recording, model: TranscriptionModel, wanted: str) -> Reply:
    """What was heard, in the wanted format.

    Raises:
        Refusal: The recording turned out too short or too long for the model.
    """
    _check_length(heard.duration, asked.form, model)
    if wanted in {"text", "srt", "vtt"}:
        text = {"text": f"{heard.text}\n", "srt": _srt(heard.segments), "vtt": _vtt(heard.segments)}[wanted]
        return Reply(200, {"content-type": "text/plain; charset=utf-8"}, text.encode("utf-8"))
    bodies = {"json": _plain, "verbose_json": _verbose, "diarized_json": _diarized}
    content = bodies[wanted](heard, asked, model)
    return json_reply({**content, **_usage(heard, asked, model)})


def _check_length(duration: float, sent: Form, model: TranscriptionModel) -> None:
    if duration < model.min_seconds:
        message = f"Audio file is too short. Minimum audio length is {model.min_seconds} seconds."
        raise Refusal(message, param="file", code="audio_too_short")
    if model.max_seconds is not None and duration > model.max_seconds:
        message = f"audio duration {duration:g} seconds is longer than {model.max_seconds:g} seconds"
        raise Refusal(f"{message} which is the maximum for this model", code="invalid_value")
    if model.chunking_strategy == "required" and duration > _LONGEST_UNCUT and not sent.get("chunking_strategy"):
        message = f"chunking_strategy is required for `{model.name}` when the audio is longer than 30 seconds."
        raise Refusal(message, param="chunking_strategy", code="missing_required_parameter")


def _plain(heard: Heard, asked: Recording, model: TranscriptionModel) -> dict[str, Any]:
    content: dict[str, Any] = {"text": heard.text}
    if model.language_parameter == "languages" and not asked.translate:
        content["languages"] = [{"code": code} for code in asked.form.all("languages") or [heard.code]]
    return content


def _verbose(heard: Heard, asked: Recording, model: TranscriptionModel) -> dict[str, Any]:
    granularities = asked.form.all("timestamp_granularities") or ["segment"]
    content: dict[str, Any] = {
        "task": "translate" if asked.translate else "transcribe",
        "language": "english" if asked.translate else heard.language,
        "duration": heard.duration,
        "text": heard.text,
    }
    if model.word_times and "word" in granularities:
        content["words"] = [_word(word) for word in heard.words]
    if "segment" in granularities:
        content["segments"] = [_segment(index, segment) for index, segment in enumerate(heard.segments)]
    return content


def _word(word: HeardWord) -> dict[str, Any]:
    content = {"word": word.text, "start": word.start, "end": word.end}
    return content if word.probability is None else {**content, "probability": word.probability}


def _segment(index: int, segment: HeardSegment) -> dict[str, Any]:
    text = segment.text.encode("utf-8")
    return {
        "id": index,
        "seek": int(segment.start * 100),
        "start": segment.start,
        "end": segment.end,
        "text": f" {segment.text}",
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": segment.avg_logprob,
        "compression_ratio": len(text) / len(zlib.compress(text)),
        "no_speech_prob": 0.0,
    }


def _diarized(heard: Heard, _asked: Recording, _model: TranscriptionModel) -> dict[str, Any]:
    segments = [
        {
            "type": "transcript.text.segment",
            "id": f"seg_{index}",
            "start": segment.start,
            "end": segment.end,
            "text": segment.text,
            "speaker": segment.speaker,
        }
        for index, segment in enumerate(heard.segments)
    ]
    return {"task": "transcribe", "duration": heard.duration, "text": heard.text, "segments": segments}


def _usage(heard: Heard, asked: Recording, model: TranscriptionModel) -> dict[str, Any]:
    if asked.translate or model.usage not in {"duration", "tokens"}:
        return {}
    if model.usage == "duration":
        return {"usage": {"type": "duration", "seconds": math.ceil(heard.duration)}}
    # Ten audio tokens a second, and three quarters of a word to a token, as OpenAI's figures come out.
    audio, text = math.ceil(heard.duration * 10), len((asked.form.get("prompt") or "").split())
    output = math.ceil(len(heard.text.split()) * 4 / 3)
    usage = {
        "type": "tokens",
        "input_tokens": audio + text,
        "input_token_details": {"text_tokens": text, "audio_tokens": audio},
        "output_tokens": output,
        "total_tokens": audio + text + output,
    }
    return {"usage": usage}


# Subtitles are written here anew: a fake that shares the client's code would share its faults.


def _srt(segments: Iterable[HeardSegment]) -> str:
    cues = (
        f"{number}\n{_clock(segment.start, ',')} --> {_clock(segment.end, ',')}\n{segment.text}\n"
        for number, segment in enumerate(segments, 1)
    )
    return "\n".join(cues) + "\n"


def _vtt(segments: Iterable[HeardSegment]) -> str:
    cues = (f"{_clock(segment.start, '.')} --> {_clock(segment.end, '.')}\n{segment.text}\n" for segment in segments)
    return "\n".join(["WEBVTT\n", *cues]) + "\n"


def _clock(seconds: float, point: str) -> str:
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours:02}:{minute:02}:{second:02}{point}{thousandths:03}"

"""What is asked of a model: parameters → form fields, and what is refused before it is sent.

Servers answer 200 to parameters they ignore, so whatever a model is known not to do is
refused here. What is not known about a model passes. Nothing here sends, reads or waits.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, TypeAlias

from voxvec.errors import AudioError, ConfigError, InputError
from voxvec.transcription import languages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voxvec.models import TranscriptionModel
    from voxvec.transcription.transcript import Usage

__all__ = ["Fields", "check_audio", "cost", "fields", "file_name", "translation_fields"]

Fields: TypeAlias = tuple[tuple[str, str], ...]
"""Names and values of a multipart form, in the order they are sent; a name may repeat."""

# Registered types where there is one (https://www.iana.org/assignments/media-types/), else the customary one.
_MEDIA_TYPES = {
    "aac": "audio/aac",
    "aiff": "audio/aiff",
    "amr": "audio/amr",
    "caf": "audio/x-caf",
    "flac": "audio/flac",
    "m4a": "audio/mp4",
    "mkv": "video/x-matroska",
    "mov": "video/quicktime",
    "mp3": "audio/mpeg",
    "mp4": "audio/mp4",
    "ogg": "audio/ogg",
    "wav": "audio/wav",
    "webm": "audio/webm",
}

# No token of a byte-level BPE, Whisper's among them, reaches from one of these into the next.
_WORD = re.compile(r"[^\W_]+")

_FORBIDDEN_IN_KEYWORDS = {"<", ">", "\r", "\n"}


def fields(
    model: TranscriptionModel,
    *,
    language: str | None = None,
    prompt: str | None = None,
    keywords: Sequence[str] = (),
    speakers: bool = False,
    temperature: float | None = None,
) -> Fields:
    """The form of a transcription request, without its file.

    It asks for the richest JSON the model has; subtitles are made of that here.

    Args:
        model: Who is asked.
        language: Spoken language, in any way `languages.normalize` reads; None or ``"auto"`` sends none.
        prompt: Text to go by, in the way the model has; an empty one is not sent.
        keywords: Words to listen for, one line each.
        speakers: Whether to tell speakers apart.
        temperature: Sampling temperature, in [0, 1].

    Raises:
        ConfigError: The model does not do what is asked, so it would ignore or refuse it.
        InputError: A keyword cannot be sent, and ``positions`` says which; or the prompt is certainly longer than the
            model reads.
    """
    return (
        ("model", model.name),
        *_format(model, speakers=speakers),
        *_language(model, language),
        *_prompt(model, prompt),
        *_keywords(model, keywords),
        *_temperature(model, temperature),
        *((("chunking_strategy", "auto"),) if model.chunking_strategy == "required" else ()),
    )


def translation_fields(
    model: TranscriptionModel, *, prompt: str | None = None, temperature: float | None = None
) -> Fields:
    """The form of a request to translate speech to English text, without its file.

    Args:
        model: Who is asked.
        prompt: English text to go by; an empty one is not sent.
        temperature: Sampling temperature, in [0, 1].

    Raises:
        ConfigError: The model does not translate, or does not do what is asked.
        InputError: The prompt is certainly longer than the model reads.
    """
    if model.translates is False:
        raise ConfigError(
            f"{model.name} does not translate speech, nothing was sent; transcribe it and translate the text, "
            "or use a model that does"
        )
    rich = "verbose_json" if "verbose_json" in model.formats else "json"
    return (
        ("model", model.name),
        ("response_format", rich),
        *_prompt(model, prompt),
        *_temperature(model, temperature),
    )


def _format(model: TranscriptionModel, *, speakers: bool) -> Fields:
    if speakers and model.speakers is False:
        raise ConfigError(
            f"{model.name} does not tell speakers apart, nothing was sent; use a model that does, or leave speakers out"
        )
    if speakers:
        return (("response_format", "diarized_json"),)
    if "verbose_json" not in model.formats:
        rich = next((name for name in ("diarized_json", "json", "text") if name in model.formats), "json")
        return (("response_format", rich),)
    times = (("segment", model.segment_times), ("word", model.word_times))
    return (
        ("response_format", "verbose_json"),
        *(("timestamp_granularities[]", granularity) for granularity, known in times if known),
    )


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{what} must be a text, not {type(value).__name__}; nothing was sent")
    return value


def _is_keyword(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and _FORBIDDEN_IN_KEYWORDS.isdisjoint(value)


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def _language(model: TranscriptionModel, language: str | None) -> Fields:
    if language is not None:
        _text(language, "language")
    if model.language_parameter is None and languages.is_named(language):
        raise ConfigError(f"{model.name} cannot be told the language, nothing was sent; leave language out")
    code = languages.for_model(language, model)
    if code is None:
        return ()
    return (("languages[]" if model.language_parameter == "languages" else "language", code),)


def _prompt(model: TranscriptionModel, prompt: str | None) -> Fields:
    if prompt is None or not _text(prompt, "prompt").strip():
        return ()
    if model.prompt == "none":
        raise ConfigError(f"{model.name} takes no prompt, nothing was sent; leave prompt out")
    words, limit = len(_WORD.findall(prompt)), model.max_prompt_tokens
    if limit is not None and words > limit:
        raise InputError(
            f"prompt has {words} words and so at least as many tokens, of which {model.name} would read the last "
            f"{limit} and ignore the rest; nothing was sent; pass the end alone"
        )
    return (("prompt", prompt),)


def _keywords(model: TranscriptionModel, keywords: Sequence[str]) -> Fields:
    if isinstance(keywords, str):
        raise InputError("keywords must be a list of words, not one text; put it into a list; nothing was sent")
    keywords = tuple(keywords)  # it is gone through twice
    if keywords and model.keywords is False:
        instead = "" if model.prompt == "none" else ", or write the words into prompt"
        raise ConfigError(f"{model.name} takes no keywords, nothing was sent; leave keywords out{instead}")
    for position, keyword in enumerate(keywords):
        if not _is_keyword(keyword):
            raise InputError(
                f"keyword {position} cannot be sent: it must be one line, not empty, without < and >; nothing was sent",
                positions=[position],
            )
    return tuple(("keywords[]", keyword) for keyword in keywords)


def _temperature(model: TranscriptionModel, temperature: float | None) -> Fields:
    if temperature is None:
        return ()
    if not _is_share(temperature):
        raise ConfigError(f"temperature must be from 0 to 1, not {temperature!r}; nothing was sent")
    if model.temperature is False:
        raise ConfigError(f"{model.name} takes no temperature, nothing was sent; leave temperature out")
    return (("temperature", str(float(temperature))),)


def file_name(container: str) -> tuple[str, str]:
    """Name and media type to send a recording under: ``("audio.ogg", "audio/ogg")``.

    Servers judge a file by both, and not all of them can read a name that is not ASCII.

    Args:
        container: Kind of file, as `voxvec.transcription.audio` names it.
    """
    return f"audio.{container}", _MEDIA_TYPES[container]


def check_audio(
    model: TranscriptionModel, *, container: str, size: int, seconds: float | None, name: str | None = None
) -> None:
    """Refuse a recording the model does not take as it is.

    Args:
        model: Who is asked.
        container: Kind of file, as `voxvec.transcription.audio` names it.
        size: Length of the file [bytes].
        seconds: Length of the recording [s], or None if it is not known.
        name: What to call it in the message.

    Raises:
        AudioError: The container, the size or the length is not taken; the message says what is.
    """
    what = name or "the recording"
    if model.containers is not None and container not in model.containers:
        taken = ", ".join(sorted(model.containers))
        raise AudioError(
            f"{what} is {container}, which {model.name} does not take; nothing was sent; convert it to one of {taken}"
        )
    if model.max_bytes is not None and size > model.max_bytes:
        raise AudioError(
            f"{what} has {size:,} bytes, {model.name} takes {model.max_bytes:,}; nothing was sent; "
            "it cannot be sent in parts yet: compress it, cut it, or use a model without that limit"
        )
    if seconds is not None:
        _check_length(model, what, seconds)


def _check_length(model: TranscriptionModel, what: str, seconds: float) -> None:
    if seconds < model.min_seconds:
        raise AudioError(
            f"{what} lasts {seconds:.3f} s, {model.name} takes {model.min_seconds:g} s or more; nothing was sent; "
            "leave it out, or put silence behind it"
        )
    if model.max_seconds is not None and seconds > model.max_seconds:
        raise AudioError(
            f"{what} lasts {seconds:.1f} s, {model.name} takes {model.max_seconds:g} s; nothing was sent; "
            "it cannot be sent in parts yet: cut it, or use a model without that limit"
        )


def cost(model: TranscriptionModel, *, seconds: float | None, usage: Usage | None = None) -> Decimal | None:
    """What a recording costs, in US dollars; None if that cannot be told.

    Args:
        model: Who is asked, with its prices.
        seconds: Length of the recording [s], if known; what the server counted goes before it.
        usage: What the server counted; None before it was asked.
    """
    by_tokens = _token_cost(model, usage) if usage is not None else None
    if by_tokens is not None:
        return by_tokens
    charged = seconds if usage is None or usage.seconds is None else usage.seconds
    if model.price_per_minute is None or charged is None:
        return None
    return model.price_per_minute * Decimal(str(charged)) / 60


def _token_cost(model: TranscriptionModel, usage: Usage) -> Decimal | None:
    sound_price = model.audio_input_price
    if model.input_price is None or model.output_price is None or usage.output_tokens is None:
        return None
    if sound_price is None and usage.input_tokens is not None:
        taken_in = usage.input_tokens * model.input_price
    elif sound_price is not None and usage.audio_tokens is not None and usage.text_tokens is not None:
        taken_in = usage.audio_tokens * sound_price + usage.text_tokens * model.input_price
    else:
        return None
    return (taken_in + usage.output_tokens * model.output_price) / 1_000_000

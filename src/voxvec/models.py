"""What is known about models: abilities, limits, prices, dates, each with its source.

The facts are data, in ``models.toml`` beside this file; what each means stands here, field by field. Nothing here talks
to a server, and no program should have to know a model's name to know what the model can do.

The file is long because every field of a model is described for users.
"""

from __future__ import annotations

import datetime as dt
import inspect
import operator
import re
import tomllib
import warnings
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias, overload

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from voxvec.errors import ConfigError, VoxvecWarning

__all__ = [
    "DimsRange",
    "EmbeddingModel",
    "EmbeddingModelName",
    "Fact",
    "TranscriptionModel",
    "TranscriptionModelName",
    "find",
    "names",
    "register",
    "register_deployment",
]

EmbeddingModelName: TypeAlias = Literal["text-embedding-3-large", "text-embedding-3-small", "text-embedding-ada-002"]
TranscriptionModelName: TypeAlias = Literal[
    "gpt-transcribe", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-4o-transcribe-diarize", "whisper-1"
]

Matryoshka = Literal["none", "prefix", "layernorm_prefix"]
InputType = Literal["query", "document"]


class _Data(BaseModel):
    """Frozen, strict about names, and checked again whenever it is copied with changes."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise ConfigError(_explain(type(self).__name__, error)) from None

    def replace(self, **changes: Any) -> Self:
        """Copy with some facts changed, checked like a new object.

        Raises:
            ConfigError: A field is unknown, or a value cannot be.
        """
        return type(self)(**{**dict(self), **changes})

    def model_copy(self, *, update: Any = None, deep: bool = False) -> Self:
        """Do what `replace` does; pydantic's own would not check the changes."""
        copied = super().model_copy(deep=deep)
        return copied.replace(**update) if update else copied


def _plain(value: Any) -> Any:
    """NumPy's whole numbers as Python's; everything else as it is."""
    return value if isinstance(value, bool) or not hasattr(value, "__index__") else operator.index(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _explain(what: str, error: ValidationError) -> str:
    reasons = [
        ": ".join(filter(None, (".".join(map(str, entry["loc"])), entry["msg"].removeprefix("Value error, "))))
        for entry in error.errors(include_url=False, include_context=False)
    ]
    return f"{what} cannot be made: {'; '.join(reasons)}"


class Fact(_Data):
    """Where some of a model's facts come from."""

    fields: tuple[str, ...]
    """Names of the fields it vouches for."""
    source: str
    """Page, file or measurement."""
    as_of: dt.date
    """Day it was looked up."""
    confirmed: bool = True
    """False for what is only widely repeated; check it before you rely on it."""


class DimsRange(_Data):
    """Every whole number from ``min`` to ``max``."""

    min: int = Field(ge=1)
    max: int = Field(ge=1)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min must be at most max, not {self.min} with max {self.max}")
        return self

    def __contains__(self, dims: int) -> bool:
        return self.min <= dims <= self.max

    def __str__(self) -> str:
        return f"{self.min} to {self.max}"


class EmbeddingModel(_Data):
    """What a text-to-vector model can do.

    Lengths are in tokens, prices in US dollars per million tokens. None means unknown, never zero.
    """

    name: str = Field(min_length=1)
    """What is sent as ``model``; on Azure the name of the deployment."""
    family: str = ""
    """Model that the facts belong to; the name, unless it is a deployment's."""
    dims: int | None = Field(default=None, ge=1)
    """Length of the vectors asked for."""
    native_dims: int | None = Field(default=None, ge=1)
    """Length of the vectors when nothing is asked for; ``dims`` in a description that leaves it out."""
    allowed_dims: DimsRange | tuple[int, ...] | None = None
    """Lengths the server can be asked for; None if unknown, the native one alone if it cannot be asked."""
    matryoshka: Matryoshka = "none"
    """How a vector may be shortened: not at all, by cutting, or by layer-normalising and cutting (then unit length)."""
    unit_length: Literal["yes", "native", "no", "unknown"] = "unknown"
    """Whether the served vectors have length 1: always, at native dims only, no, or nobody has checked."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Longest text [tokens]."""
    max_items: int = Field(default=2048, ge=1)
    """Most texts in one request."""
    max_request_tokens: int | None = Field(default=None, ge=1)
    """Most tokens in one request, summed over its texts."""
    tokenizer: str | None = None
    """Name of the tokenizer: ``cl100k_base``, or ``wordpiece`` for that of BERT uncased; None if unknown."""
    tells_apart: bool | None = None
    """Whether any two texts have different vectors; None judges by the texts, or by a tokenizer that loses nothing."""
    dims_parameter: str | None = "dimensions"
    """Field of the request that asks for a length; None, in TOML ``""``, if there is none."""
    accepts_token_ids: bool | None = None
    """Whether a text may be sent as token ids."""
    base64: bool | None = None
    """Whether ``encoding_format="base64"`` is honoured; None if only trying tells."""
    query_prefix: str = ""
    """Put before every query by ``input_type="query"``."""
    document_prefix: str = ""
    """Put before every document by ``input_type="document"``."""
    input_type_parameter: str | None = None
    """Field of the request that takes the role of the texts; None if there is none."""
    query_input_type: str = "query"
    """Value of that field for queries."""
    document_input_type: str = "document"
    """Value of that field for documents."""
    price: Decimal | None = Field(default=None, ge=0)
    """US dollars per million tokens."""
    batch_price: Decimal | None = Field(default=None, ge=0)
    """US dollars per million tokens through the Batch API."""
    shutdown: dt.date | None = None
    """Day the model goes away, if one is announced."""
    successor: str | None = None
    """What its maker names instead."""
    facts: tuple[Fact, ...] = ()
    """Sources of the above."""

    @property
    def is_unit_length(self) -> bool:
        """Whether served vectors of these dims are known, not only said, to have length 1."""
        doubtful = any("unit_length" in fact.fields and not fact.confirmed for fact in self.facts)
        served = self.dims if self.dims_parameter else self.native_dims
        native = self.native_dims is not None and served == self.native_dims
        return not doubtful and (self.unit_length == "yes" or (self.unit_length == "native" and native))

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: dict[str, Any]) -> dict[str, Any]:
        # A native length that is given as unknown stays so: a copy of a model asked for 256 dims has no native 256.
        native = data["native_dims"] if "native_dims" in data else data.get("dims")
        dims = native if data.get("dims") is None else data["dims"]
        family = data.get("family") or data.get("name", "")
        data = {**data, "dims": dims, "native_dims": native, "family": family}
        return {**data, "dims_parameter": None} if data.get("dims_parameter") == "" else data

    @model_validator(mode="after")
    def _dims_allowed(self) -> Self:
        objection = None if self.dims is None else self._objection(self.dims)
        if objection is not None:
            raise ValueError(objection)
        return self

    def _objection(self, dims: int) -> str | None:
        """Why vectors of this length cannot be had; None if they can."""
        if not _is_whole(dims):
            return f"dimensions must be a whole number, not {dims!r}; {self.name} gives {self.dims_hint()}"
        listed = self.allowed_dims is None or dims in self.allowed_dims
        if dims == self.native_dims or (dims >= 1 and listed and (self.dims_parameter or self._can_cut(dims))):
            return None
        why = "" if self.dims_parameter else " (its server cannot be asked for a length)"
        return f"{self.name} gives {self.dims_hint()} dimensions, not {dims}{why}"

    def _can_cut(self, dims: int) -> bool:
        """Whether such a vector is a beginning of the native one."""
        return self.matryoshka != "none" and self.native_dims is not None and dims < self.native_dims

    def with_dims(self, dims: int | None) -> Self:
        """The model asked for vectors of another length; None leaves it as it is.

        A native length that nobody knows stays unknown, so that the server is asked for this one.

        Raises:
            ConfigError: The model cannot give that length; the message names those it can.
        """
        if dims is None:
            return self
        wanted: int = _plain(dims)
        if wanted == self.dims and _is_whole(wanted):
            return self
        objection = self._objection(wanted)
        if objection is not None:
            raise ConfigError(f"{objection}; nothing was sent")
        return self.replace(dims=wanted)

    def dims_hint(self) -> str:
        """The lengths the model can give, for a message: ``"1 to 3072"`` or ``"256, 512 or 1024"``."""
        fixed = self.dims_parameter is None and self.matryoshka == "none"
        if isinstance(self.allowed_dims, DimsRange) and not fixed:
            return str(self.allowed_dims)
        listed = self.allowed_dims if isinstance(self.allowed_dims, tuple) and not fixed else ()
        choices = sorted({*listed, *([self.native_dims] if self.native_dims else [])})
        unknown = "any number of" if self.dims_parameter else "an unknown number of"
        *head, last = map(str, choices) if choices else [unknown]
        return f"{', '.join(head)} or {last}" if head else last

    def __contains__(self, dims: int) -> bool:
        """Whether vectors of this length can be asked for: ``256 in model``."""
        return self._objection(dims) is None


class TranscriptionModel(_Data):
    """What a speech-to-text model can do.

    Times are in seconds, prices in US dollars. None means unknown, never zero.
    """

    name: str = Field(min_length=1)
    """What is sent as ``model``; on Azure the name of the deployment."""
    family: str = ""
    """Model that the facts belong to; the name, unless it is a deployment's."""
    containers: tuple[str, ...] | None = None
    """File types the server takes, as `voxvec.transcription.audio` names them; None if unknown."""
    formats: tuple[str, ...] = ("json",)
    """Values of ``response_format`` it honours."""
    segment_times: bool | None = None
    """Whether it says when each segment begins and ends."""
    word_times: bool | None = None
    """Whether it says when each word begins and ends."""
    speakers: bool | None = None
    """Whether it tells speakers apart."""
    max_known_speakers: int = Field(default=0, ge=0)
    """How many voices it can be given samples of."""
    streaming: bool | None = None
    """Whether it can send the text while it is still at work."""
    logprobs: bool | None = None
    """Whether it can say how sure it is of each token."""
    prompt: Literal["continuation", "free", "context", "none", "unknown"] = "unknown"
    """What a prompt does: text to continue, free instruction, topic description, or nothing."""
    max_prompt_tokens: int | None = Field(default=None, ge=1)
    """How much of the prompt is read [tokens]; the end counts."""
    keywords: bool | None = None
    """Whether it takes words to listen for."""
    language_parameter: Literal["language", "languages"] | None = "language"
    """Field of the request that names the spoken language."""
    languages: tuple[str, ...] | None = None
    """Codes that field takes; None if unknown."""
    detects_language: bool | None = None
    """Whether the answer names the language it heard."""
    temperature: bool | None = None
    """Whether it takes a sampling temperature."""
    chunking_strategy: Literal["no", "optional", "required", "unknown"] = "unknown"
    """Whether the server can, or for over 30 s must, be told how to cut the recording."""
    translates: bool | None = None
    """Whether it is served at ``/audio/translations`` (speech to English text)."""
    max_bytes: int | None = Field(default=None, ge=1)
    """Largest file [bytes]."""
    max_seconds: float | None = Field(default=None, gt=0)
    """Longest recording [s]."""
    min_seconds: float = Field(default=0.1, ge=0)
    """Shortest recording [s]."""
    max_output_tokens: int | None = Field(default=None, ge=1)
    """Where the text is cut off without a word [tokens]."""
    context_tokens: int | None = Field(default=None, ge=1)
    """Size of the model's context [tokens]."""
    usage: Literal["duration", "tokens", "none", "unknown"] = "unknown"
    """What the answer counts."""
    price_per_minute: Decimal | None = Field(default=None, ge=0)
    """US dollars per minute of recording, if charged by time."""
    input_price: Decimal | None = Field(default=None, ge=0)
    """US dollars per million input tokens, if charged by tokens."""
    audio_input_price: Decimal | None = Field(default=None, ge=0)
    """US dollars per million input tokens of audio, where they cost more than those of the prompt."""
    output_price: Decimal | None = Field(default=None, ge=0)
    """US dollars per million output tokens, if charged by tokens."""
    shutdown: dt.date | None = None
    """Day the model goes away, if one is announced."""
    successor: str | None = None
    """What its maker names instead."""
    remarks: tuple[str, ...] = ()
    """What a user of the result must know; copied into every transcript's warnings."""
    facts: tuple[Fact, ...] = ()
    """Sources of the above."""

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: dict[str, Any]) -> dict[str, Any]:
        return {**data, "family": data.get("family") or data.get("name", "")}


class _Registry:
    """Bundled models and the user's, by name; and which were warned about."""

    def __init__(self) -> None:
        self._own: dict[str, EmbeddingModel | TranscriptionModel] = {}
        self._warned: set[str] = set()

    def get(self, name: str) -> EmbeddingModel | TranscriptionModel | None:
        return self._own.get(name) or _bundled(name)

    def put(self, model: EmbeddingModel | TranscriptionModel, *, overwrite: bool) -> None:
        if not overwrite and self.get(model.name) is not None:
            raise ConfigError(f"a model named {model.name!r} is already known; pass overwrite=True to replace it")
        self._own[model.name] = model

    def known(self) -> list[str]:
        return [*_entries(), *(name for name in list(self._own) if name not in _entries())]

    def warn_once(self, name: str, message: str) -> None:
        if name not in self._warned:
            self._warned.add(name)
            warnings.warn(message, VoxvecWarning, stacklevel=_callers_level())


def _callers_level() -> int:
    """How far up the stack the first line is that is not ours, so that a warning names the user's own."""
    # What does this from Python 3.12 on, skip_file_prefixes, is not in 3.11.
    level, frame = 0, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "voxvec":
        level, frame = level + 1, frame.f_back
    return level


@cache
def _entries() -> dict[str, str]:
    """The bundled entries as they stand in the file, by name; reading one takes a hundredth of the time of all."""
    text = Path(__file__).with_name("models.toml").read_text("utf-8")
    entries = re.split(r"^(?=\[\[)", text, flags=re.MULTILINE)[1:]
    return {tomllib.loads(entry[entry.index("name =") :].partition("\n")[0])["name"]: entry for entry in entries}


@cache
def _bundled(name: str) -> EmbeddingModel | TranscriptionModel | None:
    entry = tomllib.loads(_entries().get(name, ""))
    for kind, cls in (("embedding", EmbeddingModel), ("transcription", TranscriptionModel)):
        for fields in entry.get(kind, ()):
            return cls(**fields)
    return None


_registry = _Registry()


def names(kind: Literal["embedding", "transcription"] | None = None) -> list[str]:
    """Names of all known models, the bundled ones first, in a stable order."""
    wanted = {"embedding": EmbeddingModel, "transcription": TranscriptionModel, None: object}[kind]
    return [name for name in _registry.known() if isinstance(_registry.get(name), wanted)]


def register(model: EmbeddingModel | TranscriptionModel, *, overwrite: bool = False) -> None:
    """Make a model known under its name, for this process.

    Raises:
        ConfigError: The name is taken and ``overwrite`` is not set.
    """
    if not isinstance(model, EmbeddingModel | TranscriptionModel):  # pyright: ignore[reportUnnecessaryIsInstance] -- untyped callers
        raise ConfigError(f"a model is described by an EmbeddingModel or a TranscriptionModel, not by {model!r:.80}")
    _registry.put(model, overwrite=overwrite)


def register_deployment(name: str, family: str, *, overwrite: bool = False) -> None:
    """Make an Azure deployment (or a server's alias) known as a model of a family.

    Args:
        name: What has to be sent as ``model``.
        family: Known model whose facts hold for it, such as ``"text-embedding-3-large"``.
        overwrite: Whether ``name`` may be known already.

    Raises:
        ConfigError: The family is unknown, or the name is taken.
    """
    known = _registry.get(family)
    if known is None:
        raise ConfigError(f"no model family {family!r} is known; see voxvec.models.names()")
    _registry.put(known.replace(name=name, family=known.family), overwrite=overwrite)


@overload
def find(name: TranscriptionModelName) -> TranscriptionModel: ...
@overload
def find(name: EmbeddingModelName, *, dims: int | None = None) -> EmbeddingModel: ...
@overload
def find(name: str, *, kind: Literal["embedding"], dims: int | None = None) -> EmbeddingModel: ...
@overload
def find(name: str, *, kind: Literal["transcription"]) -> TranscriptionModel: ...
@overload
def find(name: str, *, dims: int) -> EmbeddingModel: ...
@overload
def find(name: str) -> EmbeddingModel | TranscriptionModel: ...
def find(
    name: str, *, kind: Literal["embedding", "transcription"] | None = None, dims: int | None = None
) -> EmbeddingModel | TranscriptionModel:
    """What is known about a model.

    Args:
        name: Name of the model, or of a registered deployment.
        kind: What the model is for; needed only to type the result, and for names nobody knows.
        dims: Ask an embedding model for vectors of this length.

    Returns:
        The model. For a name nobody knows it is one with permissive limits, no price and
        no shortening, and a `VoxvecWarning` says so once.

    Raises:
        ConfigError: The model is of the other kind, or cannot give vectors of that length.
    """
    model = _registry.get(name)
    if model is None:
        _registry.warn_once(
            name,
            f"model {name!r} is not known to voxvec: no limit is checked before sending and no cost can be told; "
            "describe it with voxvec.models.register() or register_deployment()",
        )
        model = TranscriptionModel(name=name) if kind == "transcription" else EmbeddingModel(name=name)
    if isinstance(model, EmbeddingModel) and kind != "transcription":
        return model.with_dims(dims)
    if isinstance(model, TranscriptionModel) and kind != "embedding" and dims is None:
        return model
    found = "an embedding" if isinstance(model, EmbeddingModel) else "a transcription"
    raise ConfigError(f"{name} is {found} model, which cannot be used for this")


def warn_if_deprecated(model: EmbeddingModel | TranscriptionModel) -> None:
    """Say once per process when a model goes away and what replaces it."""
    if model.shutdown is not None:
        instead = f"; use {model.successor} instead" if model.successor else ""
        _registry.warn_once(model.family, f"{model.family} is shut down on {model.shutdown.isoformat()}{instead}")

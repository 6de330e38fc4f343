"""Answers OpenAI-shaped requests out of a brain: vectors, transcripts, lists of models.

Pure: a request goes in, a reply comes out, and everything that a real server would refuse
is refused in its words and its shape. Knows neither sockets nor clients, and of a model
only the facts that the brain hands over.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import numpy as np
import pybase64

from voxvec.local import speech
from voxvec.local.exchange import Refusal, Reply, json_reply
from voxvec.models import EmbeddingModel, TranscriptionModel

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from voxvec.local.brain import Brain
    from voxvec.local.exchange import Request

__all__ = ["Responder"]

_METHODS: Final = {
    "embeddings": "POST",
    "audio/transcriptions": "POST",
    "audio/translations": "POST",
    "models": "GET",
}
# What OpenAI puts for a model whose birthday does not matter: 2024-01-01.
_CREATED: Final = 1_704_067_200

_M = TypeVar("_M", EmbeddingModel, TranscriptionModel)


class Responder:
    """One server, thinking with one brain.

    Args:
        brain: Computes what is asked for.
        owner: What the list of models gives as ``owned_by``.
        hint: Said behind the refusal of a model that it does not know.
    """

    def __init__(self, brain: Brain, *, owner: str = "voxvec", hint: str = "") -> None:
        self._brain, self._owner, self._hint = brain, owner, hint

    def __call__(self, request: Request) -> Reply:
        """Answer; a refusal is an answer too."""
        try:
            return self._answer(request)
        except Refusal as refusal:
            return refusal.reply()

    def _answer(self, request: Request) -> Reply:
        kind, _, name = (request.endpoint or "").partition("models/")
        endpoint = kind or ("models" if name else "")
        if endpoint not in _METHODS:
            raise Refusal(f"Invalid URL ({request.method} {request.path})", status=404)
        if request.method != _METHODS[endpoint]:
            raise Refusal(
                f"Not allowed to {request.method} on {request.path}. "
                "(HINT: Perhaps you meant to use a different HTTP method?)",
                status=405,
                code="method_not_supported",
            )
        if endpoint == "models":
            return json_reply(self._describe(self._known(name)) if name else self._list())
        if endpoint == "embeddings":
            return self._embed(request)
        return self._transcribe(request, translate=endpoint == "audio/translations")

    # -- models

    def _list(self) -> dict[str, Any]:
        return {"object": "list", "data": [self._describe(model) for model in self._brain.models().values()]}

    def _describe(self, model: EmbeddingModel | TranscriptionModel) -> dict[str, Any]:
        facts = {"id": model.name, "object": "model", "created": _CREATED, "owned_by": self._owner}
        return facts if model.shutdown is None else {**facts, "shutdown_date": model.shutdown.isoformat()}

    def _known(self, name: str) -> EmbeddingModel | TranscriptionModel:
        model = self._brain.models().get(name)
        if model is None:
            raise Refusal(
                f"The model `{name}` does not exist or you do not have access to it.{self._hint}",
                status=404,
                code="model_not_found",
            )
        return model

    def _model(self, name: object, kind: type[_M], endpoint: str) -> _M:
        if not isinstance(name, str) or not name:
            raise Refusal("you must provide a model parameter", param="model")
        model = self._known(name)
        if not isinstance(model, kind):
            raise Refusal(f"The model `{name}` cannot be used at {endpoint}.", param="model", code="invalid_value")
        return model

    # -- embeddings

    def _embed(self, request: Request) -> Reply:
        asked = _json_object(request.body)
        model = self._model(asked.get("model"), EmbeddingModel, "/embeddings")
        texts = _texts(asked.get("input"), model.max_items)
        encoding = asked.get("encoding_format") or "float"
        if encoding not in {"float", "base64"}:
            message = f"Invalid value: {encoding!r}. Supported values are: 'float' and 'base64'."
            raise Refusal(message, param="encoding_format", code="invalid_value")
        rows, tokens = self._brain.embed(_with_dims(model, asked.get("dimensions")), texts)
        encoded = _base64(rows) if encoding == "base64" else _floats(rows)
        return Reply(200, {"content-type": "application/json"}, _vectors(encoded, model.name, tokens))

    # -- speech

    def _transcribe(self, request: Request, *, translate: bool) -> Reply:
        form = speech.form(request)
        endpoint = "/audio/translations" if translate else "/audio/transcriptions"
        model = self._model(form.get("model"), TranscriptionModel, endpoint)
        recording = speech.recording(form, model, translate=translate)
        wanted = speech.wanted_format(form, model)
        return speech.reply(self._brain.transcribe(model, recording), recording, model, wanted)


def _json_object(body: bytes) -> dict[str, Any]:
    asked: Any = None
    with suppress(ValueError, RecursionError):
        asked = json.loads(body)
    if not isinstance(asked, dict):
        raise Refusal("We could not parse the JSON body of your request. The API expects a JSON object.")
    return cast("dict[str, Any]", asked)


def _texts(given: str | list[Any] | None, most: int) -> list[str]:
    if given is None:
        message = "Missing required parameter: 'input'."
        raise Refusal(message, param="input", code="missing_required_parameter")
    texts: list[Any] = given if isinstance(given, list) else [given]
    if len(texts) > most:
        message = f"Invalid 'input': array too long. Expected an array with maximum length {most}, got {len(texts)}."
        raise Refusal(message, param="input", code="array_above_max_length")
    if not all(isinstance(text, str) for text in texts):
        message = "Invalid 'input': expected a string or an array of strings; token arrays are not taken here."
        raise Refusal(message, param="input", code="invalid_type")
    if not texts or not all(texts):
        raise Refusal("Invalid 'input': input cannot be an empty string or array.", param="input", code="invalid_value")
    return texts


def _with_dims(model: EmbeddingModel, dims: Any) -> EmbeddingModel:
    if dims is None:
        return model
    if not isinstance(dims, int) or isinstance(dims, bool):
        message = f"Invalid type for 'dimensions': expected an integer, got {dims!r}."
        raise Refusal(message, param="dimensions", code="invalid_type")
    if not model.dims_parameter:
        raise Refusal("This model does not support specifying dimensions.", param="dimensions")
    if dims not in model:
        message = f"Invalid value for 'dimensions' = {dims}. This model gives {model.dims_hint()} dimensions."
        raise Refusal(message, param="dimensions", code="invalid_value")
    return model.with_dims(dims)


def _base64(rows: npt.NDArray[np.float32]) -> Iterable[str]:
    little = np.ascontiguousarray(rows, dtype="<f4")
    return (f'"{pybase64.b64encode_as_string(row.tobytes())}"' for row in little)


def _floats(rows: npt.NDArray[np.float32]) -> Iterable[str]:
    lines = json.JSONEncoder(separators=(",\n        ", ": "))
    return (f"[\n        {lines.encode(row.tolist())[1:-1]}\n      ]" for row in rows)


def _vectors(encoded: Iterable[str], model: str, tokens: int) -> bytes:
    # By hand, because json's indenting writer is plain Python and takes seconds for a full request.
    item = '    {{\n      "object": "embedding",\n      "index": {},\n      "embedding": {}\n    }}'
    items = ",\n".join(item.format(index, vector) for index, vector in enumerate(encoded))
    tail = json.dumps({"model": model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}, indent=2)
    return f'{{\n  "object": "list",\n  "data": [\n{items}\n  ],{tail[1:]}\n'.encode()

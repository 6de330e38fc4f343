"""``voxvec models``: what is known about models, and where it is known from."""

from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, cast

import typer

import voxvec as vv
from voxvec.cli import screen
from voxvec.cli.options import AsJson
from voxvec.errors import ConfigError

if TYPE_CHECKING:
    from voxvec.models import EmbeddingModel, Fact, TranscriptionModel

__all__ = ["models"]


def models(
    name: Annotated[str | None, typer.Argument(help="Show everything about this one.", show_default=False)] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """List models, or tell all about one."""
    known = [vv.models.find(each) for each in vv.models.names()]
    if name is None and as_json:
        screen.show_json({"models": [_as_json(model) for model in known]})
    elif name is None:
        header = ("name", "what", "about", "price", "ends")
        screen.show(screen.columns([header, *(_row(model) for model in known)]))
    else:
        _one(name, as_json=as_json)


def _one(name: str, *, as_json: bool) -> None:
    if name not in vv.models.names():
        close = get_close_matches(name, vv.models.names(), n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else "; see: voxvec models"
        raise ConfigError(f"no model {name!r} is known{hint}")
    model = vv.models.find(name)
    if as_json:
        screen.show_json(_as_json(model))
        return
    known = {field: value for field in type(model).model_fields if (value := getattr(model, field)) is not None}
    facts = known.pop("facts")
    screen.show(screen.columns([(field, _shown(value)) for field, value in known.items() if value not in {"", ()}]))
    screen.show("".join(f"{_source(fact)}\n" for fact in facts))


def _as_json(model: "EmbeddingModel | TranscriptionModel") -> dict[str, screen.Json]:
    kind = "embedding" if isinstance(model, vv.EmbeddingModel) else "transcription"
    return {"kind": kind, **model.model_dump(mode="json")}


def _row(model: "EmbeddingModel | TranscriptionModel") -> tuple[str, ...]:
    ends = model.shutdown.isoformat() if model.shutdown else ""
    if isinstance(model, vv.EmbeddingModel):
        price = _price((model.price, "per 1M tokens"))
        return model.name, "embedding", f"{model.dims or '?'} dims", price, ends
    abilities = {
        "segment times": model.segment_times,
        "word times": model.word_times,
        "speakers": model.speakers,
        "translates": model.translates,
    }
    about = ", ".join(name for name, able in abilities.items() if able) or "text"
    price = _price((model.price_per_minute, "per minute"), (model.input_price, "per 1M tokens in"))
    return model.name, "transcription", about, price, ends


def _price(*prices: tuple[object, str]) -> str:
    return next((f"${price} {unit}" for price, unit in prices if price is not None), "unknown")


def _shown(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case tuple():
            return ", ".join(map(str, cast("tuple[object, ...]", value)))
        case _:
            return str(value)


def _source(fact: "Fact") -> str:
    doubt = "" if fact.confirmed else " (unconfirmed)"
    return f"{', '.join(fact.fields)}: {fact.source}, {fact.as_of.isoformat()}{doubt}"

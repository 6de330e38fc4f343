import copy
import datetime as dt
import pickle
import tomllib
import warnings
from decimal import Decimal
from importlib import resources
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import AudioModel
from openai.types import EmbeddingModel as OpenAIEmbeddingModel

from voxvec import models
from voxvec.errors import ConfigError, VoxvecWarning
from voxvec.models import DimsRange, EmbeddingModel, TranscriptionModel

BUNDLED = tomllib.loads(resources.files("voxvec").joinpath("models.toml").read_text("utf-8"))
ENTRIES = [
    pytest.param(kind, entry, id=entry["name"])
    for kind, cls in (("embedding", EmbeddingModel), ("transcription", TranscriptionModel))
    for entry in BUNDLED[kind]
]
OPENAI = ["text-embedding-3-large", "text-embedding-3-small", "text-embedding-ada-002"]
LARGE = "text-embedding-3-large"


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """A registry of its own for every test; what is bundled is shared and never changes."""
    monkeypatch.setattr(models, "_registry", models._Registry())


@pytest.mark.parametrize(("kind", "entry"), ENTRIES)
def test_every_bundled_field_is_vouched_for_and_nothing_else(kind, entry):
    vouched = {field for fact in entry["facts"] for field in fact["fields"]}
    assert vouched == set(entry) - {"name", "facts"}


@pytest.mark.parametrize(("kind", "entry"), ENTRIES)
def test_every_bundled_fact_has_a_source_and_a_date(kind, entry):
    for fact in models.find(entry["name"]).facts:
        assert fact.fields
        assert fact.source.strip()
        assert dt.date(2026, 1, 1) <= fact.as_of <= dt.date(2026, 11, 22)


@pytest.mark.parametrize(("kind", "entry"), ENTRIES)
def test_every_bundled_entry_is_found_under_its_name_with_its_values(kind, entry):
    model = models.find(entry["name"], kind=kind)
    assert (model.name, model.family) == (entry["name"], entry["name"])
    for field, value in entry.items():
        if isinstance(value, str | int | bool) and field != "dims_parameter" and "price" not in field:
            assert getattr(model, field) == value


def test_no_bundled_name_stands_twice():
    names = [entry["name"] for kind in BUNDLED.values() for entry in kind]
    assert len(names) == len(set(names)) == len(models.names())


def test_names_come_by_kind_and_bundled_ones_first():
    models.register(EmbeddingModel(name="mine", dims=8))
    assert models.names("embedding")[:3] == OPENAI
    assert models.names("transcription")[0] == "gpt-transcribe"
    assert models.names()[-1] == "mine"
    assert set(models.names()) == {*models.names("embedding"), *models.names("transcription")}


def test_the_types_of_names_are_pinned_to_the_data_and_to_openai():
    assert list(get_args(models.EmbeddingModelName)) == OPENAI
    assert set(OPENAI) == set(get_args(OpenAIEmbeddingModel))
    assert set(get_args(models.TranscriptionModelName)) <= set(models.names("transcription"))
    assert set(get_args(AudioModel)) <= set(models.names("transcription"))
    dated = set(get_args(AudioModel)) - set(get_args(models.TranscriptionModelName))
    assert dated == {"gpt-4o-mini-transcribe-2025-12-15"}


@pytest.mark.parametrize(
    ("name", "dims", "price", "batch"),
    [(LARGE, 3072, "0.13", "0.065"), (OPENAI[1], 1536, "0.02", "0.01"), (OPENAI[2], 1536, "0.10", "0.05")],
)
def test_openai_embedding_models_have_the_published_limits_and_prices(name, dims, price, batch):
    model = models.find(name)
    assert (model.dims, model.native_dims) == (dims, dims)
    assert (model.max_tokens, model.max_items, model.max_request_tokens) == (8192, 2048, 300_000)
    assert (model.price, model.batch_price) == (Decimal(price), Decimal(batch))
    assert model.tokenizer == "cl100k_base"


def test_a_model_that_cannot_be_asked_for_dims_has_no_parameter_for_it():
    assert models.find(OPENAI[2]).dims_parameter is None
    assert models.find(LARGE).dims_parameter == "dimensions"
    assert models.find("voyage-4").dims_parameter == "output_dimension"


@pytest.mark.parametrize(
    ("name", "shutdown"),
    [
        ("whisper-1", "2027-02-26"),
        ("gpt-4o-transcribe", "2027-02-26"),
        ("gpt-4o-mini-transcribe", "2027-02-26"),
        ("gpt-4o-mini-transcribe-2025-12-15", "2027-02-26"),
        ("gpt-4o-mini-transcribe-2025-03-20", "2027-01-20"),
        ("gpt-4o-transcribe-diarize", "2027-02-26"),
    ],
)
def test_models_that_go_away_say_when_and_what_comes_instead(name, shutdown):
    model = models.find(name)
    assert (model.shutdown, model.successor) == (dt.date.fromisoformat(shutdown), "gpt-transcribe")


def test_the_default_transcription_model_stays_and_has_only_text():
    model = models.find("gpt-transcribe")
    assert model.shutdown is None
    assert model.formats == ("json", "text")
    assert (model.language_parameter, len(model.languages)) == ("languages", 63)
    assert model.price_per_minute == Decimal("0.0045")
    assert (model.segment_times, model.word_times, model.speakers) == (False, False, False)


def test_the_keyless_models_are_free_and_say_what_they_are():
    assert models.find("all-MiniLM-L6-v2").price == 0
    speech = models.find("pocketsphinx-en-us")
    assert (speech.price_per_minute, speech.languages) == (0, ("en",))
    assert speech.remarks == ("offline, English only, low accuracy",)


@given(st.integers(-10, 4000))
def test_a_range_of_dims_takes_every_whole_number_in_it(dims):
    model = models.find(LARGE)
    assert (dims in model) == (1 <= dims <= 3072)
    if dims in model:
        asked = models.find(LARGE, dims=dims)
        assert (asked.dims, asked.native_dims) == (dims, 3072)
    else:
        with pytest.raises(ConfigError):
            models.find(LARGE, dims=dims)


@given(st.integers(1, 3000))
def test_a_list_of_dims_takes_those_in_it_and_the_native_one(dims):
    assert (dims in models.find("voyage-4")) == (dims in {256, 512, 1024, 2048})
    assert (dims in models.find(OPENAI[2])) == (dims == 1536)


@pytest.mark.parametrize(
    ("name", "dims", "message"),
    [
        (LARGE, 5000, "text-embedding-3-large gives 1 to 3072 dimensions, not 5000"),
        (OPENAI[2], 512, "text-embedding-ada-002 gives 1536 dimensions, not 512"),
        ("voyage-4", 100, "voyage-4 gives 256, 512, 1024 or 2048 dimensions, not 100"),
        (LARGE, 0, "text-embedding-3-large gives 1 to 3072 dimensions, not 0"),
        (LARGE, 2.5, "dimensions must be a whole number, not 2.5"),
        (LARGE, True, "dimensions must be a whole number, not True"),
        ("whisper-1", 5, "whisper-1 is a transcription model, which cannot be used for this"),
    ],
)
def test_dims_that_cannot_be_had_are_refused_naming_those_that_can(name, dims, message):
    with pytest.raises(ConfigError, match=message) as caught:
        models.find(name, dims=dims)
    assert caught.value.billed == "no"


def test_dims_that_are_not_asked_for_stay():
    model = models.find(LARGE)
    assert model.with_dims(None) is model
    assert model.with_dims(3072) is model
    assert model.with_dims(256).with_dims(3072) == model


def test_membership_is_about_whole_numbers_of_at_least_1():
    assert 0 not in models.find(LARGE)
    assert True not in models.find(LARGE)
    assert 10**9 in EmbeddingModel(name="unknown")


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.replace(max_items=5),
        lambda model: model.model_copy(update={"max_items": 5}),
        lambda model: model.model_copy(deep=True),
        lambda model: pickle.loads(pickle.dumps(model)),  # noqa: S301 -- our own bytes
        lambda model: EmbeddingModel(**model.model_dump()),
        lambda model: EmbeddingModel.model_validate_json(model.model_dump_json()),
        lambda model: model.with_dims(8).with_dims(256),
    ],
    ids=["replace", "model_copy", "deep", "pickle", "dump", "json", "with_dims"],
)
def test_a_native_length_that_nobody_knows_stays_unknown_in_every_copy(change):
    with pytest.warns(VoxvecWarning, match="not known"):
        model = models.find("unknown", dims=256)

    assert (model.dims, model.native_dims) == (256, None)
    assert (change(model).dims, change(model).native_dims) == (256, None)


def test_a_description_with_one_length_takes_it_as_the_native_one():
    assert EmbeddingModel(name="x", dims=8).native_dims == 8
    assert EmbeddingModel(name="x", native_dims=8).dims == 8
    assert EmbeddingModel(name="x", dims=8).replace(dims=4).native_dims == 8
    assert EmbeddingModel(name="x", dims=8, native_dims=None).native_dims is None
    with pytest.raises(ConfigError, match="native_dims"):
        EmbeddingModel(name="x", dims=8, native_dims=0)


@pytest.mark.parametrize("allowed", [None, (4, 8), DimsRange(min=1, max=8)])
def test_vectors_that_can_be_neither_asked_for_nor_cut_have_their_native_length(allowed):
    model = EmbeddingModel(name="tiny", native_dims=8, dims_parameter=None, allowed_dims=allowed)

    assert (8 in model, 4 in model, model.dims_hint()) == (True, False, "8")
    with pytest.raises(ConfigError, match=r"gives 8 dimensions, not 4 \(its server cannot be asked for a length\)"):
        model.with_dims(4)
    with pytest.raises(ConfigError, match="EmbeddingModel cannot be made: tiny gives 8 dimensions, not 4"):
        model.replace(dims=4)


def test_vectors_that_can_only_be_cut_are_never_longer_than_the_native_one():
    model = EmbeddingModel(name="tiny", native_dims=8, dims_parameter=None, matryoshka="prefix")

    assert [dims for dims in range(12) if dims in model] == [*range(1, 9)]
    assert model.with_dims(4).native_dims == 8


def test_what_cannot_be_asked_for_and_has_no_known_length_gives_none_for_sure():
    model = EmbeddingModel(name="tiny", dims_parameter=None, matryoshka="prefix")

    with pytest.raises(ConfigError, match="tiny gives an unknown number of dimensions, not 4"):
        model.with_dims(4)


def test_a_model_of_unknown_dims_says_so():
    assert EmbeddingModel(name="unknown").dims_hint() == "any number of"
    assert EmbeddingModel(name="x", dims=3).dims_hint() == "3"


def test_a_range_runs_from_small_to_large():
    assert str(DimsRange(min=1, max=8)) == "1 to 8"
    with pytest.raises(ConfigError, match="DimsRange cannot be made: min must be at most max, not 9 with max 8"):
        DimsRange(min=9, max=8)


def copied(model, **changes):
    return model.model_copy(update=changes)


@pytest.mark.parametrize("change", [EmbeddingModel.replace, copied], ids=["replace", "model_copy"])
def test_copies_with_changes_are_checked_like_a_new_object(change):
    model = models.find(LARGE)
    assert change(model, max_items=5).max_items == 5
    assert change(model, dims=256).native_dims == 3072
    with pytest.raises(ConfigError, match=r"max_items: Input should be greater than or equal to 1"):
        change(model, max_items=0)
    with pytest.raises(ConfigError, match=r"max_item: Extra inputs are not permitted"):
        change(model, max_item=5)
    with pytest.raises(ConfigError, match="gives 1 to 3072 dimensions"):
        change(model, dims=4000)
    assert model.model_copy() == model
    assert model.max_items == 2048


def test_a_model_cannot_be_changed_in_place():
    with pytest.raises(ValueError, match="frozen"):
        models.find(LARGE).dims = 5


def test_a_wrong_fact_inside_a_model_is_named():
    with pytest.raises(ConfigError, match=r"allowed_dims"):
        EmbeddingModel(name="x", dims=3, allowed_dims={"min": 5, "max": 3})
    with pytest.raises(ConfigError, match="facts"):
        EmbeddingModel(name="x", facts=[{"fields": ["dims"], "source": "a page"}])


@pytest.mark.parametrize("name", [LARGE, "whisper-1", "voyage-4"])
def test_models_are_values_that_can_be_pickled_and_copied(name):
    model = models.find(name)
    assert pickle.loads(pickle.dumps(model)) == model  # noqa: S301 -- our own bytes
    assert copy.deepcopy(model) == model
    assert model.model_copy(deep=True) == model
    assert {model: 1}[models.find(name)] == 1


def test_a_users_model_is_found_and_only_replaced_on_demand():
    mine = EmbeddingModel(name="mine", dims=8, allowed_dims=(4, 8))
    models.register(mine)
    assert models.find("mine", dims=4).dims == 4
    with pytest.raises(ConfigError, match="'mine' is already known; pass overwrite=True"):
        models.register(mine)
    models.register(mine.replace(max_items=3), overwrite=True)
    assert models.find("mine").max_items == 3
    assert models.names().count("mine") == 1


def test_a_bundled_model_is_only_replaced_on_demand():
    cheap = models.find(LARGE).replace(price=Decimal("0.01"))
    with pytest.raises(ConfigError, match="already known"):
        models.register(cheap)
    models.register(cheap, overwrite=True)
    assert models.find(LARGE).price == Decimal("0.01")
    assert models.names().count(LARGE) == 1


def test_a_deployment_has_the_facts_of_its_family():
    models.register_deployment("search-prod", LARGE)
    model = models.find("search-prod", dims=256)
    assert (model.name, model.family, model.dims, model.max_tokens) == ("search-prod", LARGE, 256, 8192)


def test_a_deployment_of_a_deployment_belongs_to_the_first_family():
    models.register_deployment("a", "whisper-1")
    models.register_deployment("b", "a")
    assert models.find("b").family == "whisper-1"


def test_a_deployment_needs_a_known_family_and_a_free_name():
    with pytest.raises(ConfigError, match=r"no model family 'text-embedding-9' is known; see voxvec.models.names\(\)"):
        models.register_deployment("x", "text-embedding-9")
    with pytest.raises(ConfigError, match="already known"):
        models.register_deployment("whisper-1", LARGE)
    models.register_deployment("whisper-1", LARGE, overwrite=True)
    assert isinstance(models.find("whisper-1"), EmbeddingModel)


def test_an_unknown_model_warns_once_and_is_permissive():
    with pytest.warns(VoxvecWarning, match=r"'text-embedding-9' is not known .*register\(\)"):
        model = models.find("text-embedding-9", dims=7)
    assert (model.dims, model.max_tokens, model.price, model.matryoshka) == (7, None, None, "none")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert models.find("text-embedding-9", kind="embedding").dims is None


def test_an_unknown_transcription_model_is_permissive_too():
    with pytest.warns(VoxvecWarning, match="'whisper-9' is not known"):
        model = models.find("whisper-9", kind="transcription")
    assert isinstance(model, TranscriptionModel)
    assert (model.languages, model.max_bytes, model.price_per_minute) == (None, None, None)


@pytest.mark.parametrize(
    ("name", "kind", "found"),
    [(LARGE, "transcription", "an embedding"), ("whisper-1", "embedding", "a transcription")],
)
def test_a_model_of_the_other_kind_is_refused(name, kind, found):
    with pytest.raises(ConfigError, match=f"{name} is {found} model, which cannot be used for this"):
        models.find(name, kind=kind)


def test_a_model_that_goes_away_warns_once_with_date_and_successor():
    with pytest.warns(VoxvecWarning, match="whisper-1 is shut down on 2027-02-26; use gpt-transcribe instead"):
        models.warn_if_deprecated(models.find("whisper-1"))
    models.register_deployment("my-whisper", "whisper-1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        models.warn_if_deprecated(models.find("whisper-1"))
        models.warn_if_deprecated(models.find("my-whisper"))
        models.warn_if_deprecated(models.find("gpt-transcribe"))


def test_a_model_without_a_successor_names_none():
    with pytest.warns(VoxvecWarning, match=r"old is shut down on 2027-01-01$"):
        models.warn_if_deprecated(EmbeddingModel(name="old", shutdown=dt.date(2027, 1, 1)))


@given(st.builds(dict, min=st.integers(1, 50), max=st.integers(1, 50)), st.integers(1, 60), st.integers(1, 60))
def test_a_model_that_could_be_made_gives_only_dims_it_allows(limits, native, dims):
    allowed = limits if limits["min"] <= limits["max"] else (limits["min"], limits["max"])
    model = EmbeddingModel(name="any", dims=native, allowed_dims=allowed)
    inside = limits["min"] <= dims <= limits["max"] if allowed is limits else dims in limits.values()
    assert (dims in model) == (inside or dims == native)
    if dims in model:
        assert model.with_dims(dims).dims == dims


def test_only_a_description_can_be_registered():
    with pytest.raises(ConfigError, match="described by an EmbeddingModel or a TranscriptionModel"):
        models.register("text-embedding-4")

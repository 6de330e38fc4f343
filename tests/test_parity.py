"""Twins offer the same: whatever one class can do, its twin can, under the same names."""

import inspect
import typing

import pytest

import voxvec as vv

PAIRS = [(vv.Embedder, vv.AsyncEmbedder), (vv.Transcriber, vv.AsyncTranscriber)]
NAMES = {"__aenter__": "__enter__", "__aexit__": "__exit__"}
# An async twin takes the async client, and what it streams may be async too.
OTHER_TYPES = {("__init__", "client"), ("stream", "texts")}


def methods(cls):
    return {
        NAMES.get(name, name): member
        for name, member in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_") or name in {"__init__", "__enter__", "__exit__", *NAMES}
    }


def surface(cls):
    """Parameters of every public method: name, kind, default and type."""
    return {
        name: [
            (each.name, each.kind, each.default, None if (name, each.name) in OTHER_TYPES else each.annotation)
            for each in inspect.signature(method).parameters.values()
        ]
        for name, method in methods(cls).items()
    }


@pytest.mark.parametrize(("sync", "twin"), PAIRS, ids=lambda cls: cls.__name__)
def test_twins_offer_the_same_methods_with_the_same_parameters(sync, twin):
    assert surface(sync) == surface(twin)


@pytest.mark.parametrize(("sync", "twin"), PAIRS, ids=lambda cls: cls.__name__)
def test_twins_return_the_same(sync, twin):
    iterators = {"Iterator": "AsyncIterator"}
    for name, method in methods(sync).items():
        returns = str(inspect.signature(method).return_annotation)
        kind, bracket, rest = returns.partition("[")

        assert str(inspect.signature(methods(twin)[name]).return_annotation) in {
            returns,
            f"{iterators.get(kind, kind)}{bracket}{rest}",
        }


@pytest.mark.parametrize(("sync", "twin"), PAIRS, ids=lambda cls: cls.__name__)
def test_of_the_twins_one_waits_and_the_other_awaits(sync, twin):
    plain = {"__init__", "stream"}

    assert not any(map(inspect.iscoroutinefunction, methods(sync).values()))
    assert {name for name, method in methods(twin).items() if not inspect.iscoroutinefunction(method)} <= plain


@pytest.mark.parametrize(("sync", "twin"), PAIRS, ids=lambda cls: cls.__name__)
def test_both_twins_are_documented(sync, twin):
    for cls in (sync, twin):
        for name, method in methods(cls).items():
            assert name.startswith("__") or inspect.getdoc(method)
        assert typing.cast("str", cls.__doc__)

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxvec import errors
from voxvec.errors import (
    AudioError,
    AuthError,
    CacheError,
    ConfigError,
    InputError,
    JobError,
    MissingExtraError,
    NetworkError,
    QuotaError,
    RateLimitError,
    RefusedError,
    ResponseError,
    ServerError,
    ServiceError,
    ServiceTimeoutError,
    VoxvecError,
    redact,
)

ASKED = [
    ResponseError,
    ServiceError,
    RateLimitError,
    QuotaError,
    AuthError,
    RefusedError,
    ServerError,
    NetworkError,
    ServiceTimeoutError,
]
PLAIN = [VoxvecError, ConfigError, InputError, AudioError, CacheError, JobError]
KEYS = st.from_regex(r"sk-[A-Za-z0-9_-]{8,40}", fullmatch=True)


def asked(cls):
    return cls(
        "it broke",
        kind="transient",
        billed="maybe",
        positions=[3, 5],
        status=503,
        code="overloaded",
        request_id="req_1",
        retry_after=1.5,
        attempts=4,
        should_retry=True,
    )


def every_error():
    yield from (cls("it broke", billed="yes", positions=[2]) for cls in PLAIN)
    yield from (asked(cls) for cls in ASKED)
    yield MissingExtraError("reading MP3", extra="audio")


def all_classes(cls):
    return {cls}.union(*(all_classes(below) for below in cls.__subclasses__()))


def drawn_tree():
    """Class by parent, read from the drawing in the docstring of the module."""
    tree, path = {}, []
    for line in errors.__doc__.split("::")[1].splitlines():
        words = line.replace("│", " ").replace("├──", "   ").replace("└──", "   ")
        if not words.strip() or not words.startswith("    ") or "Error" not in words.split()[0]:
            continue
        depth = (len(words) - len(words.lstrip())) // 4 - 1
        name = words.split()[0]
        path[depth:] = [name]
        tree[name] = path[depth - 1] if depth else None
    return tree


def test_the_tree_is_as_drawn():
    tree = drawn_tree()

    assert len(tree) == 16
    for name, parent in tree.items():
        if parent is not None:
            assert issubclass(getattr(errors, name), getattr(errors, parent)), name
    assert {cls.__name__ for cls in all_classes(VoxvecError) if not cls.__name__.startswith("_")} == set(tree)


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (ConfigError, ValueError),
        (InputError, ValueError),
        (AudioError, ValueError),
        (MissingExtraError, ImportError),
        (ServiceTimeoutError, TimeoutError),
    ],
)
def test_some_are_builtin_errors_too(cls, builtin):
    assert issubclass(cls, builtin)


def test_every_class_is_tried_here():
    assert {type(error) for error in every_error()} | {errors._AskedError} == all_classes(VoxvecError)


@pytest.mark.case("F49")
@pytest.mark.parametrize("again", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])  # noqa: S301 -- made here
@pytest.mark.parametrize("cls", [type(error) for error in every_error()])
def test_an_error_survives_pickling_with_all_its_fields(cls, again):
    error = next(error for error in every_error() if type(error) is cls)
    error.done, error.failed, error.pending = 1, 2, 3
    error.add_note("while embedding chapter 2")

    twin = again(error)

    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert twin.args == error.args
    assert vars(twin) == vars(error)
    assert twin.__notes__ == ["while embedding chapter 2"]


def test_what_was_bought_is_not_pickled_along():
    error = ServerError("it broke", kind="transient")
    error.partial = object()

    assert pickle.loads(pickle.dumps(error)).partial is None  # noqa: S301 -- made here
    assert error.partial is not None


def test_what_a_server_said_is_redacted_on_the_way_into_an_error():
    error = RefusedError("your key sk-abcdefgh12345 is \x1b[31mwrong", kind="refused")

    assert str(error) == "your key [secret] is \\x1b[31mwrong"


def test_a_missing_extra_names_the_line_that_installs_it():
    error = MissingExtraError("reading MP3", extra="audio")

    assert str(error) == "reading MP3 needs an optional package; install it with: pip install 'voxvec[audio]'"
    assert error.extra == "audio"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Bearer abc123, or not", "Bearer [secret], or not"),
        ("authorization: bearer abc123", "authorization: bearer [secret]"),
        ("sk-proj-abcdefgh and pk-12345678", "[secret] and [secret]"),
        ("task-12345678 is no key", "task-12345678 is no key"),
        ("https://user:pass@host/v1", "https://[secret]@host/v1"),
        ("https://user@host/v1", "https://[secret]@host/v1"),
        ("https://:pass@host/v1", "https://[secret]@host/v1"),
        ("https://user:p@ss:w@host/v1", "https://[secret]@host/v1"),
        ("https://host/v1?mail=a@b", "https://host/v1?mail=a@b"),
        ("?api_key=abc&x=1", "?api_key=[secret]&x=1"),
        ("api-key: abc", "api-key:[secret]"),
        ("한국어 café", "한국어 café"),
        ("a\r\nb\tc\x00\u202e\ud800", "a\\r\\nb\\tc\\x00\\u202e\\ud800"),
    ],
)
def test_credentials_and_control_characters_are_not_shown(text, shown):
    assert redact(text) == shown


def test_a_secret_that_looks_like_none_is_hidden_where_it_is_known():
    assert redact("no such user hunter2hunter2", ["", "hunter2hunter2"]) == "no such user [secret]"


@given(st.text(max_size=3_000), KEYS, st.text(max_size=3_000))
def test_a_key_is_never_shown_wherever_it_stands(before, key, after):
    text = redact(f"{before} {key} {after}", [key])

    assert key not in text


@given(st.integers(0, 400), st.integers(0, 3_000), st.text(alphabet="0123456789", min_size=20, max_size=200))
def test_no_part_of_a_secret_is_left_by_the_cut(times, before, secret):
    assert secret[:10] not in redact("x" * before + secret * times, [secret])


@given(st.text(max_size=3_000))
def test_what_is_shown_is_printable_short_and_stays_as_it_is(text):
    shown = redact(text)

    assert shown.isprintable()
    assert len(shown) <= 2_000
    assert redact(shown) == shown


@given(st.text(alphabet=st.characters(categories=["Ll", "Lo", "Nd"]), max_size=2_000))
def test_an_innocent_text_is_shown_as_it_is(text):
    assert redact(text) == text


def test_a_long_text_ends_in_an_ellipsis():
    assert redact("x" * 5_000_000) == "x" * 1_999 + "…"

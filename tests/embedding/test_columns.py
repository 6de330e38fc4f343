"""What may be embedded: lists, generators, columns; and every text that may not, by its position."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import voxvec as vv
from voxvec.embedding import texts as column

TEXTS = ["ant", "bee", "naïve 🙂"]


def pandas_series(**kwargs):
    return pytest.importorskip("pandas").Series(TEXTS, **kwargs)


def polars_series():
    return pytest.importorskip("polars").Series(TEXTS)


def arrow_array():
    return pytest.importorskip("pyarrow").chunked_array([TEXTS])


COLUMNS = [
    pytest.param(lambda: TEXTS, id="list"),
    pytest.param(lambda: tuple(TEXTS), id="tuple"),
    pytest.param(lambda: (text for text in TEXTS), id="generator"),
    pytest.param(lambda: dict.fromkeys(TEXTS), id="keys-of-a-dict"),
    pytest.param(lambda: np.array(TEXTS), id="numpy"),
    pytest.param(lambda: np.array(TEXTS, dtype=object), id="numpy-objects"),
    pytest.param(lambda: list(np.array(TEXTS)), id="numpy-scalars"),
    pytest.param(pandas_series, id="pandas"),
    pytest.param(lambda: pandas_series(dtype=object), id="pandas-objects"),
    pytest.param(lambda: pandas_series(dtype="string"), id="pandas-strings"),
    pytest.param(lambda: pandas_series(dtype="category"), id="pandas-categories"),
    pytest.param(lambda: pandas_series(index=[7, 7, 9]), id="pandas-odd-index"),
    pytest.param(polars_series, id="polars"),
]


@pytest.mark.case("I08")
@pytest.mark.parametrize("make", [*COLUMNS, pytest.param(arrow_array, id="arrow")])
def test_every_kind_of_column_is_embedded_in_its_order(twin, server, vectors_of, make):
    assert twin.embedder(dimensions=8).embed(make()).tolist() == vectors_of(TEXTS, 8)


@pytest.mark.parametrize("make", COLUMNS)
def test_every_kind_of_column_can_be_streamed(twin, server, vectors_of, make):
    (part,) = twin.embedder(dimensions=8).stream(make())

    assert part.tolist() == vectors_of(TEXTS, 8)


@pytest.mark.case("I03")
@pytest.mark.parametrize("text", ["a\0b", "\n\n", " ", "\u200b", "<|endoftext|>", "e\u0301", "\ufeff"])
def test_odd_texts_are_sent_as_they_are(twin, server, text):
    twin.embedder(dimensions=8).embed([text])

    assert server.texts == [text]


BAD = [
    ("", "is empty"),
    (None, "is missing"),
    (float("nan"), "is missing"),
    (np.float64("nan"), "is missing"),
    (b"ant", "is of type bytes"),
    (7, "is of type int"),
    (["ant"], "is of type list"),
    (np.zeros(3), "is of type ndarray"),
    ("a\ud800b", "lone surrogate"),
]


@pytest.mark.case("I02", "F51", "F52")
@pytest.mark.parametrize(("text", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_a_text_that_cannot_be_sent_is_named_and_nothing_is_sent(twin, server, text, reason):
    embedder = twin.embedder(dimensions=8)

    with pytest.raises(vv.InputError, match=f"text 1 .*{reason}.*Nothing was sent") as caught:
        embedder.embed(["ant", text, "bee", text])

    assert caught.value.positions == (1, 3)
    assert server.asked == []


@pytest.mark.parametrize("text", [text for text, _ in BAD])
def test_embed_one_refuses_the_same(twin, server, text):
    with pytest.raises(vv.InputError) as caught:
        twin.embedder(dimensions=8).embed_one(text)

    assert caught.value.positions == (0,)
    assert server.asked == []


@pytest.mark.parametrize("dtype", ["string", "object", "str", "datetime64[ns]"])
def test_gaps_in_a_pandas_column_are_missing(twin, dtype):
    pd = pytest.importorskip("pandas")

    with pytest.raises(vv.InputError, match="text 1 is missing") as caught:
        twin.embedder(dimensions=8).embed(pd.Series(["2020-01-01", None], dtype=dtype))

    assert 1 in caught.value.positions


def test_many_bad_texts_are_all_in_positions_and_ten_in_the_message():
    error = column.refused(dict.fromkeys(range(25), "is empty"))

    assert error.positions == tuple(range(25))
    assert "text 9 is empty; … (25 in all)" in str(error)
    assert "text 10" not in str(error)


@pytest.mark.case("I01")
@pytest.mark.parametrize("whole", ["ant", b"ant", bytearray(b"ant"), 7, None, object()])
def test_what_is_no_column_is_refused(twin, server, whole):
    with pytest.raises(vv.InputError, match=r"embed_one|iterable of str"):
        twin.embedder(dimensions=8).embed(whole)

    assert server.asked == []


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_table_is_no_column(twin, library):
    table = pytest.importorskip(library).DataFrame({"text": TEXTS})

    with pytest.raises(vv.InputError, match="one column"):
        twin.embedder(dimensions=8).embed(table)


def test_a_numpy_scalar_in_place_of_a_column_is_one_text_to_refuse_by_kind():
    assert column.as_list(np.array("ant")) == ["ant"]


@given(st.lists(st.text() | st.none() | st.floats() | st.binary() | st.integers()))
def test_exactly_the_texts_that_can_be_encoded_and_are_not_empty_pass(texts):
    faults = column.check(texts)

    for position, text in enumerate(texts):
        assert (position in faults) == (not isinstance(text, str) or not text)


@given(st.text(alphabet=st.characters(), min_size=1))
def test_a_text_is_refused_for_its_characters_only_if_utf_8_cannot_carry_it(text):
    try:
        text.encode()
    except UnicodeEncodeError:
        assert "surrogate" in column.check([text])[0]
    else:
        assert column.check([text]) == {}


class Table:
    """As pandas' and polars' tables: iterating over one gives the names of its columns."""

    columns = ("question", "answer")

    def __iter__(self):
        return iter(self.columns)


@pytest.mark.case("I08")
def test_a_table_is_refused_instead_of_embedding_its_column_names():
    with pytest.raises(vv.InputError, match=r"one column, not a table.*Nothing was sent"):
        column.as_list(Table())


@pytest.mark.parametrize("client", [vv.Embedder, vv.AsyncEmbedder])
def test_only_an_embedding_model_makes_an_embedder(client):
    with pytest.raises(vv.ConfigError, match="EmbeddingModel"):
        client(vv.models.find("gpt-transcribe"))


@pytest.mark.parametrize("client", [vv.Embedder, vv.AsyncEmbedder, vv.Transcriber, vv.AsyncTranscriber])
def test_a_namespace_is_a_text(client):
    model = "text-embedding-3-small" if "Embedder" in client.__name__ else "gpt-transcribe"

    with pytest.raises(vv.ConfigError, match="namespace must be a text or None, not 5"):
        client(model, namespace=5)

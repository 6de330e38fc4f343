import dataclasses
import pickle

import numpy as np
import pytest

from voxvec.errors import ConfigError, InputError
from voxvec.similarity import Hit, Index, top_k

ROWS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]], dtype=np.float32)


def test_hits_name_the_items_nearest_first():
    index = Index(ROWS, items=["x", "y", "z", "xy"])
    assert index.search([1.0, 0.1, 0.0], k=2) == [
        Hit("x", pytest.approx(0.995037), 0),
        Hit("xy", pytest.approx(0.773957), 3),
    ]


def test_items_are_positions_unless_given():
    assert [hit.item for hit in Index(ROWS).search([0, 0, 2])] == [2, 0, 1, 3]


def test_rows_of_vectors_give_a_list_of_hits_each():
    found = Index(ROWS, items="abcd").search(ROWS[:2], k=1)
    assert [[hit.item for hit in hits] for hits in found] == [["a"], ["b"]]
    assert Index(ROWS).search(np.empty((0, 3))) == []


@pytest.mark.parametrize("measure", ["cosine", "dot", "euclidean"])
def test_an_index_agrees_with_top_k(measure):
    random = np.random.default_rng(1)
    rows, queries = random.standard_normal((300, 16)), random.standard_normal((7, 16))
    scores, positions = top_k(queries, rows, 5, measure=measure)
    found = Index(rows, measure=measure).search(queries, k=5)
    assert [[hit.score for hit in hits] for hits in found] == scores.tolist()
    assert [[hit.position for hit in hits] for hits in found] == positions.tolist()


def test_an_empty_index_gives_no_hits():
    for empty in (Index([]), Index(np.empty((0, 2))), Index([], items=[])):
        assert len(empty) == 0
        assert empty.search([1.0, 0.0]) == []
        assert empty.search([[1.0, 0.0], [0.0, 1.0]]) == [[], []]


def test_a_matrix_is_neither_copied_nor_made_read_only_for_its_owner():
    rows = ROWS.copy()
    index = Index(rows)
    assert np.shares_memory(index._rows, rows)
    assert not index._rows.flags.writeable
    assert rows.flags.writeable


def test_an_index_says_what_it_holds():
    assert len(Index(ROWS)) == 4
    assert repr(Index(ROWS, measure="dot")) == "<Index of 4 vectors of 3 dims by dot>"


def test_items_may_be_any_iterable_but_must_be_one_per_row():
    assert Index(ROWS, items=(letter for letter in "abcd")).search(ROWS[3], k=1)[0].item == "d"
    with pytest.raises(InputError, match="one item per row, not 3 for 4 rows"):
        Index(ROWS, items=["a", "b", "c"])


def test_a_query_of_another_width_is_refused():
    with pytest.raises(InputError, match="2 and 3 dims"):
        Index(ROWS).search([1.0, 2.0])
    with pytest.raises(InputError, match="2 and 3 dims"):
        Index(np.empty((0, 3))).search([1.0, 2.0])


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(ConfigError, match="measure must be one of"):
        Index(ROWS, measure="cos")
    with pytest.raises(ConfigError, match="k must be"):
        Index(ROWS).search(ROWS[0], k=0)
    with pytest.raises(InputError, match="row 0 holds NaN"):
        Index([[np.nan]])
    with pytest.raises(InputError, match="row 0 holds NaN"):
        Index(ROWS).search([0, 0, np.nan])


def test_hits_are_values():
    hit = Hit("a", 0.5, 3)
    assert pickle.loads(pickle.dumps(hit)) == hit  # noqa: S301 -- our own bytes
    with pytest.raises(dataclasses.FrozenInstanceError):
        hit.score = 1.0


def test_an_index_survives_pickling():
    index = pickle.loads(pickle.dumps(Index(ROWS, items="abcd")))  # noqa: S301 -- our own bytes
    assert index.search(ROWS[2], k=1)[0].item == "c"

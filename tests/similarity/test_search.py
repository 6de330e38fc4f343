import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from voxvec.errors import ConfigError, InputError
from voxvec.similarity import top_k

MEASURES = ["cosine", "dot", "euclidean"]
entries = st.one_of(
    st.integers(-2, 2).map(float),
    st.floats(-1, 1, width=32),
    st.sampled_from([float(np.float32(value)) for value in (0.0, 1e-44, -1e-44, 1e-30, 1e30, 3e38, -3e38)]),
)


def scores_of(queries, vectors, measure):
    """All scores in 64 bits, pair by pair, rounded at the end, and how far rounding may have led them astray."""
    a, b = queries.astype(np.float64)[:, None], vectors.astype(np.float64)[None]
    if measure == "euclidean":
        table = np.sqrt(((a - b) ** 2).sum(axis=2))
        doubt = 1e-6 * table
    else:
        table, doubt = (a * b).sum(axis=2), 1e-14 * np.abs(a * b).sum(axis=2)
        doubt += 1e-6 * np.abs(table)
        if measure == "cosine":
            sizes = np.sqrt((a**2).sum(axis=2) * (b**2).sum(axis=2))
            table = np.divide(table, sizes, out=np.zeros_like(table), where=sizes > 0)
            doubt = np.full_like(table, 1e-6)
    with np.errstate(over="ignore", under="ignore"):
        return table.astype(np.float32).astype(np.float64), doubt + 1e-44


def check(queries, vectors, k, measure, block):
    """The k best by their scores, each as good as its position in the table of all scores."""
    scores, positions = top_k(queries, vectors, k, measure=measure, block=block)
    assert scores.shape == positions.shape == (len(queries), min(k, len(vectors)))
    assert (scores.dtype, positions.dtype) == (np.float32, np.int64)
    table, doubt = scores_of(queries, vectors, measure)
    sign = 1 if measure == "euclidean" else -1
    for found, places, exact, tolerance in zip(scores.astype(np.float64), positions, table, doubt, strict=True):
        same = found == exact[places]
        assert np.all(same | (np.abs(found[~same] - exact[places][~same]) <= tolerance[places][~same]).all())
        assert len(set(places)) == len(places)
        ranked = list(zip(sign * found, places, strict=True))
        assert ranked == sorted(ranked)
        rest = np.setdiff1d(np.arange(len(vectors)), places)
        worst = sign * found[-1] - tolerance[places[-1]]
        assert np.all(sign * exact[rest] >= worst - tolerance[rest])
    return scores, positions


@st.composite
def problems(draw, elements=entries):
    dims = draw(st.integers(1, 4))
    queries = draw(hnp.arrays(np.float32, (draw(st.integers(0, 4)), dims), elements=elements))
    vectors = draw(hnp.arrays(np.float32, (draw(st.integers(1, 30)), dims), elements=elements))
    return queries, vectors, draw(st.integers(1, 35)), draw(st.sampled_from(MEASURES))


@given(problems(st.integers(-2, 2).map(float)), st.integers(1, 8))
def test_the_answer_is_the_stable_sort_of_all_scores(problem, block):
    queries, vectors, k, measure = problem
    _, positions = top_k(queries, vectors, k, measure=measure, block=block)
    table, _ = scores_of(queries, vectors, measure)
    expected = np.argsort(table if measure == "euclidean" else -table, axis=1, kind="stable")[:, :k]
    if measure == "cosine":  # roots are rounded: equal angles may differ in the last bit
        np.testing.assert_allclose(
            np.take_along_axis(table, positions, 1), np.take_along_axis(table, expected, 1), atol=1e-6
        )
    else:
        assert positions.tolist() == expected.tolist()


@given(problems(), st.integers(1, 8))
def test_it_is_exact_whatever_the_size_of_the_entries(problem, block):
    check(*problem, block)


@given(problems(), st.integers(1, 8))
def test_the_size_of_the_blocks_changes_nothing(problem, block):
    queries, vectors, k, measure = problem
    whole, small = (top_k(queries, vectors, k, measure=measure, block=size) for size in (1000, block))
    assert whole[0].tolist() == small[0].tolist()
    assert whole[1].tolist() == small[1].tolist()


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("seed", range(3))
def test_real_sizes_agree_with_64_bits(measure, seed):
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((3000, 48), dtype=np.float32) * random.gamma(2, size=(3000, 1)).astype(np.float32)
    vectors[1000:1020] = vectors[5]
    queries = np.concatenate((vectors[:3], random.standard_normal((297, 48), dtype=np.float32)))
    first = check(queries, vectors, 10, measure, 700)
    again = top_k(queries, vectors, 10, measure=measure)
    assert first[1].tolist() == again[1].tolist()


@pytest.mark.parametrize("measure", MEASURES)
def test_equal_rows_come_in_the_order_of_their_positions(measure):
    rows = np.tile(np.random.default_rng(0).standard_normal(31).astype(np.float32), (500, 1))
    for block in (1, 7, 100, 499, 500):
        assert top_k(rows[0], rows, 6, measure=measure, block=block)[1].tolist() == [0, 1, 2, 3, 4, 5]


def test_rows_that_come_ever_nearer_are_found_to_the_last():
    angles = np.linspace(1.5, 0.0, 2000, dtype=np.float64)
    rows = np.stack((np.cos(angles), np.sin(angles)), axis=1)
    assert top_k([1.0, 0.0], rows, 3, block=100)[1].tolist() == [1999, 1998, 1997]


def test_one_giant_row_does_not_hide_the_others():
    rows = np.array([[1e6, 1.0], [0.0, 1.0], [0.0, 2.0], [0.0, 3.0], [0.0, -1.0]])
    assert top_k([0.0, 1.0], rows, 3, measure="dot", block=5)[1].tolist() == [3, 2, 0]


def test_near_rows_far_out_are_told_apart_by_distance():
    rows = np.full((50, 8), 4096.0, dtype=np.float32)
    rows[:, 0] += np.arange(50)[::-1] / 1024
    assert top_k(rows[49], rows, 3, measure="euclidean")[1].tolist() == [49, 48, 47]


def test_a_zero_query_and_zero_rows_are_similar_to_nothing():
    scores, positions = top_k([[0.0, 0.0], [-1.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]], 2)
    assert scores.tolist() == [[0, 0], [0, -1]]
    assert positions.tolist() == [[0, 1], [1, 0]]


def test_distances_and_products_beyond_32_bits_are_infinite():
    rows = np.full((2, 2), 3e38)
    assert top_k(-rows[0], rows, 2, measure="euclidean")[0].tolist() == [np.inf, np.inf]
    assert top_k(rows[0], rows, 1, measure="dot")[0].tolist() == [np.inf]


def test_one_query_has_no_axis_in_the_result():
    scores, positions = top_k([0.0, 1.0], [[1.0, 0.0], [0.0, 1.0]], 1)
    assert (scores.tolist(), positions.tolist()) == ([1.0], [1])


def test_fewer_rows_than_asked_for_are_all_found():
    assert top_k([[1.0]], [[2.0], [1.0]], 5, measure="dot")[1].tolist() == [[0, 1]]
    assert top_k([[1.0]], np.empty((0, 1)), 5)[1].shape == (1, 0)
    assert top_k([[1.0]], [], 5)[1].shape == (1, 0)
    assert top_k(np.empty((0, 1)), [[2.0]], 5)[1].shape == (0, 1)


def test_the_vectors_are_neither_copied_nor_changed():
    rows = np.eye(3, dtype=np.float32)
    rows.flags.writeable = False
    assert top_k(rows, rows, 1)[1].ravel().tolist() == [0, 1, 2]


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "3", None])
def test_k_must_be_a_whole_number_of_at_least_1(k):
    with pytest.raises(ConfigError, match=f"k must be a whole number of at least 1, not {k!r}"):
        top_k([1.0], [[1.0]], k)


def test_other_settings_that_cannot_work_are_refused():
    with pytest.raises(ConfigError, match="block must be a whole number"):
        top_k([1.0], [[1.0]], 1, block=0)
    with pytest.raises(ConfigError, match="measure must be one of cosine, dot, euclidean, not 'manhattan'"):
        top_k([1.0], [[1.0]], 1, measure="manhattan")


def test_input_that_cannot_be_compared_is_refused():
    with pytest.raises(InputError, match="2 and 3 dims"):
        top_k([1.0, 0.0], [[1.0, 0.0, 0.0]], 1)
    with pytest.raises(InputError, match="vectors: row 1 holds NaN") as caught:
        top_k([1.0], [[1.0], [np.nan]], 1)
    assert caught.value.positions == (1,)
    with pytest.raises(InputError, match="queries: row 0 holds NaN"):
        top_k([np.inf], [[1.0]], 1)

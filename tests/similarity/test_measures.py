import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from voxvec import similarity
from voxvec.errors import ConfigError, InputError
from voxvec.similarity import cosine, dot, euclidean, normalize, truncate

TINY, SMALL, LARGE, HUGE = (float(np.float32(value)) for value in (1e-44, 1e-30, 1e30, 3e38))
entries = st.one_of(
    st.integers(-3, 3).map(float),
    st.floats(-1, 1, width=32),
    st.sampled_from([0.0, -0.0, TINY, -TINY, SMALL, LARGE, HUGE, -HUGE]),
)


@st.composite
def pairs(draw, elements=entries):
    dims = draw(st.integers(1, 6))
    return [draw(hnp.arrays(np.float32, (draw(st.integers(0, 5)), dims), elements=elements)) for _ in range(2)]


def oracle_unit(rows):
    rows = rows.astype(np.float64)
    lengths = np.sqrt((rows**2).sum(axis=1, keepdims=True))
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)


def float32(values):
    with np.errstate(over="ignore", under="ignore"):
        return values.astype(np.float32)


class Rows:
    """As an object of another library: it has nothing but ``__array__``."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array if dtype is None else self.array.astype(dtype)


@given(pairs())
def test_cosine_is_that_of_64_bits_whatever_the_size_of_the_entries(pair):
    a, b = pair
    found = cosine(a, b)
    assert found.shape == (len(a), len(b))
    assert found.dtype == np.float32
    assert np.abs(found).max(initial=0) <= 1
    np.testing.assert_allclose(found, oracle_unit(a) @ oracle_unit(b).T, rtol=0, atol=2e-6)


@given(pairs())
def test_dot_is_that_of_64_bits_and_never_nan(pair):
    a, b = pair
    exact = (a[:, None].astype(np.float64) * b[None].astype(np.float64)).sum(axis=2)
    bound = (np.abs(a[:, None].astype(np.float64)) * np.abs(b[None].astype(np.float64))).sum(axis=2)
    found = dot(a, b)
    assert not np.isnan(found).any()
    expected = float32(exact).astype(np.float64)
    finite = np.isfinite(expected)
    assert np.all((np.abs(found[finite] - expected[finite])) <= (1e-6 * bound + 1e-37)[finite])
    assert found[~finite].tolist() == expected[~finite].tolist()


@given(pairs())
def test_euclidean_is_that_of_64_bits_whatever_the_size_of_the_entries(pair):
    a, b = pair
    exact = np.sqrt(((a[:, None].astype(np.float64) - b[None].astype(np.float64)) ** 2).sum(axis=2))
    np.testing.assert_allclose(euclidean(a, b), float32(exact), rtol=1e-6, atol=1e-44)


def test_euclidean_tells_points_apart_that_are_close_together_and_far_out():
    base = np.full(64, 1000.0, dtype=np.float32)
    near = base.copy()
    near[3] = np.nextafter(np.float32(1000.0), np.float32(2000.0))
    assert euclidean(base, base) == 0
    assert euclidean(base, near) == pytest.approx(float(near[3]) - 1000.0)
    assert euclidean(np.tile(base, (3000, 1)), near).tolist() == [euclidean(base, near)] * 3000


@given(pairs())
def test_normalised_rows_have_length_1_and_zero_rows_stay_zero(pair):
    rows = pair[0]
    found = normalize(rows)
    np.testing.assert_allclose(found, oracle_unit(rows), rtol=1e-6, atol=1e-44)
    lengths = np.sqrt((found.astype(np.float64) ** 2).sum(axis=1))
    assert np.allclose(lengths[rows.any(axis=1)], 1, atol=1e-6)
    assert not found[~rows.any(axis=1)].any()


@given(pairs(), st.data())
def test_truncating_is_cutting_and_normalising(pair, data):
    rows = pair[0]
    dims = data.draw(st.integers(1, rows.shape[1]))
    np.testing.assert_allclose(truncate(rows, dims), oracle_unit(rows[:, :dims]), rtol=1e-6, atol=1e-44)


@given(pairs(st.integers(-50, 50).map(float)), st.data())
def test_truncating_with_layer_norm_normalises_over_the_full_width_first(pair, data):
    rows = pair[0].astype(np.float64)
    dims = data.draw(st.integers(1, rows.shape[1]))
    deviation = rows.std(axis=1, keepdims=True)
    layered = np.divide(
        rows - rows.mean(axis=1, keepdims=True), deviation, out=np.zeros_like(rows), where=deviation > 0
    )
    layered[np.abs(layered) < 1e-9] = 0
    np.testing.assert_allclose(truncate(rows, dims, layer_norm=True), oracle_unit(layered[:, :dims]), atol=1e-5)


def test_a_row_of_equal_entries_has_no_direction_after_layer_norm():
    assert truncate([0.1] * 7, 3, layer_norm=True).tolist() == [0, 0, 0]


def test_truncating_keeps_the_number_of_axes():
    assert truncate([3.0, 4.0, 5.0], 2).tolist() == pytest.approx([0.6, 0.8])
    assert truncate([[3.0, 4.0, 5.0]], 2, layer_norm=True).shape == (1, 2)


@pytest.mark.parametrize("dims", [0, -1, 4])
def test_truncating_to_more_dims_than_there_are_names_both(dims):
    with pytest.raises(ConfigError, match=rf"3 dims cannot be cut to {dims}; ask for 1 to 3"):
        truncate([[1.0, 2.0, 3.0]], dims)


@pytest.mark.parametrize("measure", [cosine, dot, euclidean])
def test_a_single_vector_has_no_axis_in_the_result(measure):
    one, many = [1.0, 2.0], [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    assert measure(many, many).shape == (3, 3)
    assert measure(one, many).tolist() == measure(many, many)[0].tolist()
    assert measure(many, one).tolist() == measure(many, many)[:, 0].tolist()
    assert isinstance(measure(one, one), float)


@pytest.mark.parametrize("measure", [cosine, dot, euclidean])
def test_different_widths_are_refused_naming_both_shapes(measure):
    with pytest.raises(InputError, match=r"a of shape \(1, 2\) and b of shape \(1, 3\)"):
        measure([[1.0, 2.0]], [[1.0, 2.0, 3.0]])


@pytest.mark.parametrize("measure", [cosine, dot, euclidean])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_refused_by_position(measure, bad):
    rows = np.ones((4, 3), dtype=np.float32)
    rows[1, 2] = rows[3, 0] = bad
    with pytest.raises(InputError, match=r"b: row 1, 3 holds NaN") as caught:
        measure(np.ones(3), rows)
    assert caught.value.positions == (1, 3)


def test_many_bad_rows_are_all_in_the_error_but_not_all_in_its_message():
    with pytest.raises(InputError, match=r"row 0, 1, .*, 9, … \(5000 in all\)") as caught:
        normalize(np.full((5000, 1), np.nan))
    assert caught.value.positions == tuple(range(5000))


def test_a_number_beyond_32_bits_is_refused_without_a_warning():
    with pytest.raises(InputError, match="beyond 32 bits"):
        normalize(np.array([1e300, 1.0]))


@pytest.mark.parametrize(
    ("vectors", "reason"),
    [
        (1.0, r"not of shape \(\)"),
        (np.zeros((2, 2, 2)), r"not of shape \(2, 2, 2\)"),
        ([[1.0], [1.0, 2.0]], "all rows of one length"),
        (["1.5"], "real numbers, not of <U3"),
        ([1j], "real numbers, not of complex128"),
        (["a", 1, object()], "cannot be read"),
        ([1.0, None], "row 0 holds NaN"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(vectors, reason):
    with pytest.raises(InputError, match=reason):
        normalize(vectors)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.bool_, object])
def test_any_real_type_will_do(dtype):
    assert cosine(np.array([[1, 0], [1, 1]], dtype=dtype), Rows(np.array([1, 0], dtype=dtype))).tolist() == [
        1,
        pytest.approx(0.5**0.5),
    ]


def test_no_function_changes_its_input():
    rows = np.array([[3.0, 4.0], [0.0, 0.0]], dtype=np.float32)
    rows.flags.writeable = False
    for function in (normalize, lambda x: truncate(x, 1), lambda x: cosine(x, x), lambda x: euclidean(x, x)):
        function(rows)
    assert not np.shares_memory(normalize(rows), rows)
    assert not np.shares_memory(truncate(rows, 2), rows)


def test_nothing_warns_even_where_numpy_is_told_to():
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        rows = np.array([[HUGE, HUGE], [TINY, TINY], [0, 0], [-HUGE, HUGE]])
        assert np.isfinite(cosine(rows, rows)).all()
        assert dot(rows, rows)[0, 0] == np.inf
        assert np.isfinite(normalize(rows)).all()
        assert euclidean(rows, rows)[1, 1] == 0


def test_the_package_lists_and_lazily_gives_its_names():
    assert similarity.__all__ == sorted(similarity.__all__)
    assert set(similarity.__all__) <= set(dir(similarity))
    assert [getattr(similarity, name).__name__ for name in similarity.__all__] == similarity.__all__
    with pytest.raises(AttributeError, match="no attribute 'nearness'"):
        _ = similarity.nearness

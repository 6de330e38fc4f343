"""What `embed` returns: a read-only matrix that knows what it took."""

import copy
import io
import pickle
import random
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

import voxvec as vv
from voxvec import ConfigError, Embeddings, InputError, normalize
from voxvec.embedding import Usage


def make(n=3, dims=8, **fields):
    array = normalize(np.random.default_rng(1).normal(size=(n, dims)))
    return Embeddings(array=array, **{"model": "m", "matryoshka": "prefix", **fields})


FULL = make(usage=Usage(tokens=7, requests=2, retries=1, maybe_billed=1), cost=Decimal("0.0000001"), cached=1)


class TestAsASequence:
    def test_it_has_rows(self):
        assert (len(FULL), FULL.shape, FULL.dims) == (3, (3, 8), 8)
        assert [row.shape for row in FULL] == [(8,)] * 3
        assert FULL[-1].tolist() == FULL.tolist()[2]
        assert FULL[1:].shape == (2, 8)
        assert FULL[np.int64(1)].shape == (8,)
        assert isinstance(FULL.tolist()[0][0], float)
        with pytest.raises(IndexError):
            FULL[3]

    def test_no_vectors_still_have_their_length(self):
        empty = Embeddings(array=np.empty((0, 8), np.float32), model="m")

        assert (len(empty), empty.shape, list(empty), empty.tolist()) == (0, (0, 8), [], [])

    @pytest.mark.parametrize("view", [lambda e: e.array, lambda e: e[0], lambda e: e[:2], lambda e: next(iter(e))])
    def test_nothing_it_gives_out_can_be_written(self, view):
        with pytest.raises(ValueError, match="read-only"):
            view(FULL)[...] = 0

    def test_what_it_was_made_of_stays_writable(self):
        array = np.ones((2, 2), np.float32)

        Embeddings(array=array, model="m")

        array[0, 0] = 2

    def test_it_is_frozen(self):
        with pytest.raises(AttributeError):
            FULL.model = "other"
        with pytest.raises(TypeError):
            FULL.failed[0] = InputError("x")

    @pytest.mark.parametrize("array", [np.ones(3), np.ones((1, 2, 3)), 1.0])
    def test_it_is_a_matrix_or_nothing(self, array):
        with pytest.raises(InputError, match="matrix"):
            Embeddings(array=array, model="m")

    def test_another_type_of_number_is_converted(self):
        assert Embeddings(array=np.ones((2, 2), np.float64, order="F"), model="m").array.dtype == np.float32


class TestInNumPy:
    def test_functions_take_it_as_it_is(self):
        np.testing.assert_array_equal(np.mean(FULL, axis=0), FULL.array.mean(axis=0))
        assert np.asarray(FULL) is FULL.array

    def test_a_copy_can_be_written(self):
        array = np.array(FULL)
        array[0] = 0

        assert FULL[0].any()

    @pytest.mark.parametrize("dtype", ["f8", "f2"])
    def test_another_type_is_a_copy(self, dtype):
        assert np.asarray(FULL, dtype=dtype).dtype == dtype

    @pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.0.0", reason="NumPy 1 copies in silence")
    def test_a_copy_that_was_forbidden_is_not_made(self):
        with pytest.raises(ValueError, match="copy"):
            np.asarray(FULL, dtype="f8", copy=False)


class TestEquality:
    def test_vectors_and_model_count_and_nothing_else(self):
        assert make(cost=Decimal(1)) == make()
        assert make(model="other") != make()
        assert make(n=2) != make()
        assert make() != make().tolist()

    def test_the_same_numbers_in_another_shape_differ(self):
        one, other = (Embeddings(array=np.ones(shape, np.float32), model="m") for shape in ((2, 4), (4, 2)))

        assert one != other

    def test_it_has_no_hash(self):
        with pytest.raises(TypeError, match="unhashable"):
            hash(FULL)


def test_its_repr_tells_what_it_is_and_what_it_cost_and_no_numbers():
    assert repr(FULL) == "Embeddings(shape=(3, 8), model='m', tokens=7, cost=$0.0000001, cached=1, failed=0)"
    assert "cost=unknown" in repr(make())


class TestShrink:
    @given(st.integers(1, 8))
    def test_it_cuts_and_brings_to_length_one(self, dims):
        small = FULL.shrink(dims)

        np.testing.assert_allclose(small.array, normalize(FULL.array[:, :dims]), atol=1e-6)
        assert (small.dims, small.usage, small.cost, small.cached) == (dims, FULL.usage, FULL.cost, FULL.cached)

    def test_twice_is_as_good_as_once(self):
        np.testing.assert_allclose(FULL.shrink(6).shrink(3).array, FULL.shrink(3).array, atol=1e-6)

    def test_to_the_same_length_it_is_itself(self):
        vectors = make(matryoshka="none")

        assert vectors.shrink(8) is vectors

    def test_models_that_were_not_trained_for_it_are_refused(self):
        with pytest.raises(ConfigError, match="m cannot be shortened"):
            make(matryoshka="none").shrink(4)

    def test_so_is_ada(self, twin, server):
        vectors = twin.embedder("text-embedding-ada-002").embed(["ant"])

        with pytest.raises(ConfigError, match="text-embedding-ada-002"):
            vectors.shrink(256)

    @pytest.mark.parametrize("dims", [0, -1, 9])
    def test_no_length_out_of_range(self, dims):
        with pytest.raises(ConfigError, match="1 to 8"):
            FULL.shrink(dims)

    def test_layer_normalised_vectors_shrink_once(self):
        small = make(matryoshka="layernorm_prefix").shrink(4)

        np.testing.assert_allclose(small.array, vv.truncate(FULL.array, 4, layer_norm=True), atol=1e-6)
        with pytest.raises(ConfigError):
            small.shrink(2)

    def test_rows_of_failed_texts_stay_empty(self):
        array = np.ones((3, 8), np.float32)
        array[1] = np.nan
        vectors = Embeddings(array=array, model="m", matryoshka="prefix", failed={1: InputError("bad")})

        small = vectors.shrink(2)

        assert np.isnan(small.array).any(axis=1).tolist() == [False, True, False]
        assert list(small.failed) == [1]


class TestFiles:
    @given(st_np.arrays(np.float32, st_np.array_shapes(min_dims=2, max_dims=2, min_side=0)))
    def test_any_matrix_comes_back_bit_for_bit(self, tmp_path_factory, array):
        path = tmp_path_factory.mktemp("vectors") / "vectors.npz"

        Embeddings(array=array, model="m").save(path)

        assert Embeddings.load(path).array.tobytes() == array.tobytes()

    def test_all_that_is_known_about_them_comes_back(self, tmp_path):
        path = tmp_path / "vectors.npz"  # no suffix is added
        FULL.save(path)

        loaded = Embeddings.load(str(path))

        assert loaded == FULL
        assert (loaded.usage, loaded.cost, loaded.cached, loaded.matryoshka) == (FULL.usage, FULL.cost, 1, "prefix")

    def test_numpy_reads_them_without_us_and_without_pickle(self, tmp_path):
        FULL.save(tmp_path / "vectors.npz")

        with np.load(tmp_path / "vectors.npz", allow_pickle=False) as data:
            np.testing.assert_array_equal(data["array"], FULL.array)

    def test_failed_texts_are_not_saved(self, tmp_path):
        with pytest.raises(InputError, match="not saved") as caught:
            make(failed={2: InputError("bad")}).save(tmp_path / "vectors.npz")

        assert caught.value.positions == (2,)
        assert not list(tmp_path.iterdir())

    def test_a_file_that_is_not_there_is_pythons_own_error(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            Embeddings.load(tmp_path / "none.npz")

    def saved(self, path, **parts):
        with path.open("wb") as file:
            np.savez(file, **parts)

    @pytest.mark.parametrize(
        "parts",
        [
            pytest.param({"array": np.ones((1, 2))}, id="no-facts"),
            pytest.param({"array": np.ones((1, 2)), "about": np.array("{")}, id="no-json"),
            pytest.param({"array": np.ones((1, 2)), "about": np.array("[1]")}, id="no-object"),
            pytest.param({"array": np.ones((1, 2)), "about": np.array('{"format": 2}')}, id="of-the-future"),
            pytest.param({"array": np.ones((1, 2)), "about": np.array('{"format": 1}')}, id="half-the-facts"),
            pytest.param({"about": np.array('{"format": 1}')}, id="no-vectors"),
            pytest.param({"array": np.array([{}], dtype=object)}, id="pickled"),
        ],
    )
    def test_other_files_of_numpy_are_refused(self, tmp_path, parts):
        self.saved(tmp_path / "vectors.npz", **parts)

        with pytest.raises(InputError, match="does not hold saved embeddings"):
            Embeddings.load(tmp_path / "vectors.npz")

    def test_a_price_that_is_no_number_is_refused(self, tmp_path):
        facts = '{"format": 1, "model": "m", "usage": {}, "cost": "much", "cached": 0, "matryoshka": "none"}'
        self.saved(tmp_path / "vectors.npz", array=np.ones((1, 2)), about=np.array(facts))

        with pytest.raises(InputError, match="does not hold"):
            Embeddings.load(tmp_path / "vectors.npz")

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY", b"hello", b"{}"])
    def test_foreign_files_are_refused(self, tmp_path, content):
        (tmp_path / "vectors.npz").write_bytes(content)

        with pytest.raises(InputError, match="does not hold saved embeddings"):
            Embeddings.load(tmp_path / "vectors.npz")

    def test_a_bare_array_and_a_folder_are_refused(self, tmp_path):
        np.save(tmp_path / "array.npy", np.ones((2, 2)))

        for path in (tmp_path / "array.npy", tmp_path):
            with pytest.raises(InputError, match="does not hold"):
                Embeddings.load(path)

    def test_damage_anywhere_is_found_or_does_no_harm(self, tmp_path):
        path = tmp_path / "vectors.npz"
        FULL.save(path)
        whole = path.read_bytes()
        draw = random.Random(5)  # noqa: S311 -- the same damage every time

        for _ in range(150):
            at = draw.randrange(len(whole))
            cut = draw.random() < 0.2
            path.write_bytes(whole[:at] if cut else whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
            try:
                loaded = Embeddings.load(path)
            except InputError:
                continue
            assert loaded == FULL


class TestPickle:
    @pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])  # noqa: S301
    def test_everything_comes_back_and_is_still_read_only(self, clone):
        vectors = make(failed={1: InputError("bad", positions=[1])}, cost=Decimal(1), usage=FULL.usage)

        cloned = clone(vectors)

        assert cloned == vectors
        assert (cloned.usage, cloned.cost, cloned.matryoshka) == (vectors.usage, vectors.cost, "prefix")
        assert cloned.failed[1].positions == (1,)
        with pytest.raises(ValueError, match="read-only"):
            cloned.array[0] = 0

    def test_what_a_call_returns_is_picklable(self, twin, server):
        vectors = twin.embedder(dimensions=8).embed(["ant", ""], on_error="keep")
        file = io.BytesIO()
        pickle.dump(vectors, file)

        assert list(pickle.loads(file.getvalue()).failed) == [1]  # noqa: S301 -- made here


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(vv.ConfigError, match=r"saved as \.npz"):
        vv.Embeddings(array=np.eye(2), model="m").save(tmp_path / "vectors.csv")

    assert list(tmp_path.iterdir()) == []

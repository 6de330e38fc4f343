import subprocess
import sys

import anyio
import numpy as np
import openai
import pytest

import voxvec.local
from voxvec.local import weights


@pytest.fixture
def local():
    with voxvec.local.client() as client:
        yield client


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A user without weights and without extras."""
    monkeypatch.setenv("VOXVEC_CACHE_DIR", str(tmp_path))
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    monkeypatch.setitem(sys.modules, "av", None)
    voxvec.local._responder.cache_clear()
    yield voxvec.local.client()
    voxvec.local._responder.cache_clear()


def test_both_twins_give_the_same_vectors(local, installed):
    async def twin():
        async with voxvec.local.async_client() as client:
            return await client.embeddings.create(model="all-MiniLM-L6-v2", input=["cat", "kitten", "tax"])

    sync = local.embeddings.create(model="all-MiniLM-L6-v2", input=["cat", "kitten", "tax"])

    assert anyio.run(twin) == sync
    cat, kitten, tax = (np.array(item.embedding) for item in sync.data)
    assert cat.shape == (384,)
    assert cat @ kitten > 0.5 > cat @ tax
    assert sync.usage.prompt_tokens == 9


def test_a_long_text_is_read_up_to_256_tokens(local, installed):
    long = local.embeddings.create(model="all-MiniLM-L6-v2", input="cat " * 1000)

    assert long.usage.prompt_tokens == 256


def test_two_models_are_offered(local):
    assert [model.id for model in local.models.list()] == ["all-MiniLM-L6-v2", "pocketsphinx-en-us"]
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        local.embeddings.create(model="text-embedding-3-small", input="a")


def test_missing_weights_are_answered_with_the_line_to_install_them(bare):
    with pytest.raises(openai.APIStatusError, match="voxvec local install") as caught:
        bare.embeddings.create(model="all-MiniLM-L6-v2", input="a")

    assert (caught.value.status_code, caught.value.code) == (501, "weights_not_installed")


def test_damaged_weights_are_answered_with_what_to_do(bare, monkeypatch, tmp_path):
    (tmp_path / weights.WEIGHTS).write_bytes(b"nonsense")
    (tmp_path / weights.VOCABULARY).write_text("[UNK]")
    monkeypatch.setattr(weights, "find", lambda: tmp_path)

    with pytest.raises(openai.APIStatusError, match=r"are damaged: .* delete the folder"):
        bare.embeddings.create(model="all-MiniLM-L6-v2", input="a")


def test_missing_extras_are_answered_with_the_line_to_install_them(bare, wav):
    with pytest.raises(openai.APIStatusError, match=r"voxvec\[local\]") as recogniser:
        bare.audio.transcriptions.create(model="pocketsphinx-en-us", file=("a.wav", wav(np.zeros(9000))))
    with pytest.raises(openai.BadRequestError, match=r"voxvec\[audio\]") as decoder:
        bare.audio.transcriptions.create(model="pocketsphinx-en-us", file=("a.mp3", b"ID3"))

    assert (recogniser.value.status_code, recogniser.value.code) == (501, "missing_extra")
    assert decoder.value.code == "missing_extra"


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
@pytest.mark.parametrize("wish", [{"language": "de"}, {"response_format": "diarized_json"}, {"file": ("a.wav", b"")}])
def test_what_it_cannot_do_is_refused(local, wav, wish):
    pytest.importorskip("av")
    wishes = {"model": "pocketsphinx-en-us", "file": ("a.wav", wav(np.zeros(9000))), **wish}
    with pytest.raises(openai.BadRequestError):
        local.audio.transcriptions.create(**wishes)
    with pytest.raises(openai.BadRequestError, match="translation"):
        local.audio.translations.create(model="pocketsphinx-en-us", file=wishes["file"])


def test_importing_it_loads_nothing():
    program = "import sys, voxvec.local; print([m for m in ('openai', 'numpy', 'httpx2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)  # noqa: S603

    assert done.stdout.strip() == "[]"

import subprocess
import sys

import anyio
import numpy as np
import openai
import pytest

import voxvec.local
from voxvec import tokens
from voxvec.errors import ConfigError, InputError, MissingExtraError, RefusedError
from voxvec.local import weights

PARAGRAPH = (
    "The night train left the harbour at nine, two hours late, and nobody on the platform was surprised. A storm had "
    "closed the northern line since Sunday, and the drivers had been told to wait for the tide. Inside the dining car "
    "an old woman sold tea and buttered bread from a basket, and told whoever would listen that she had crossed these "
    "marshes before there were any rails at all. Her grandson drew the passengers one after another, gave each of "
    "them the portrait, and asked for nothing but a story in return. By morning he had eleven stories, and the sea "
    "was calm again when they arrived."
)


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
    with voxvec.local.client() as client:
        yield client
    voxvec.local._responder.cache_clear()


@pytest.fixture
def embedder(twin, installed, monkeypatch):
    """Make an embedder without a key and without tiktoken."""
    monkeypatch.setitem(sys.modules, "tiktoken", None)

    def make(**settings):
        client = voxvec.local.client() if twin.kind == "sync" else voxvec.local.async_client()
        return twin.embedder("all-MiniLM-L6-v2", client=client, **settings)

    return make


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


def test_a_text_of_256_tokens_is_read_and_one_of_257_is_refused_by_name(local, installed):
    longest = local.embeddings.create(model="all-MiniLM-L6-v2", input="cat " * 254)
    with pytest.raises(openai.BadRequestError, match=r"256 tokens, however 'input\[1\]' has 257 tokens") as refused:
        local.embeddings.create(model="all-MiniLM-L6-v2", input=["cat", "cat " * 255])

    assert longest.usage.prompt_tokens == 256
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "input")


def test_two_models_are_offered_and_named_where_another_is_asked_for(local):
    assert [model.id for model in local.models.list()] == ["all-MiniLM-L6-v2", "pocketsphinx-en-us"]
    with pytest.raises(
        openai.NotFoundError, match=r"does not exist .* `all-MiniLM-L6-v2` for texts and `pocketsphinx-"
    ):
        local.embeddings.create(model="text-embedding-3-small", input="a")


# -- long texts


def test_a_paragraph_with_more_bytes_than_tokens_allowed_is_embedded_whole(embedder):
    assert len(PARAGRAPH.encode()) == 590
    offline = embedder()

    assert offline.plan([PARAGRAPH]).exact
    assert offline.embed([PARAGRAPH]).usage.tokens == offline.plan([PARAGRAPH]).tokens < 256
    assert np.abs(offline.embed([PARAGRAPH]).array - embedder(on_long="truncate").embed([PARAGRAPH]).array).max() < 1e-6


def test_a_long_text_is_an_error_before_anything_is_computed(embedder, monkeypatch):
    monkeypatch.setattr(voxvec.local._responder(), "_answer", None)

    with pytest.raises(InputError, match=r"text 1 .*5,?002 tokens, all-MiniLM-L6-v2 takes 256") as refused:
        embedder().embed(["cat", "cat " * 5_000])

    assert refused.value.positions == (1,)


def test_a_long_text_is_truncated_at_the_limit_and_no_earlier(embedder):
    cut = embedder(on_long="truncate").embed(["cat " * 13_000])

    assert cut.usage.tokens == 256
    assert np.abs(cut.array - embedder().embed(["cat " * 254]).array).max() < 1e-5


def test_a_long_text_is_read_to_its_end_in_chunks(embedder):
    days = " ".join(f"Day {number}. {PARAGRAPH}" for number in range(5))

    chunks = embedder(on_long="chunk").embed([days, PARAGRAPH])

    assert chunks.usage.tokens > tokens.exact("wordpiece").count(days)
    assert chunks.array[0] @ chunks.array[1] > 0.9


def test_the_tokenizer_counts_as_the_backend_does(local, installed):
    tokenizer = tokens.exact("wordpiece")
    replies = [local.embeddings.create(model="all-MiniLM-L6-v2", input=text) for text in (PARAGRAPH, "猫 is café", " ")]

    counts = [tokenizer.count(text) for text in (PARAGRAPH, "猫 is café", " ")]

    assert counts == [reply.usage.prompt_tokens for reply in replies]
    assert tokens.exact("wordpiece") is tokenizer


def test_only_a_client_lends_the_tokenizer(installed):
    assert tokens.exact("wordpiece") is None
    with voxvec.local.client():
        assert tokens.exact("wordpiece") is not None


def test_without_weights_there_is_only_the_bound(bare):
    assert tokens.exact("wordpiece") is None


# -- what is missing


@pytest.fixture
def missing(twin, bare):
    """A client of either kind on a machine where everything is missing."""
    return voxvec.local.client() if twin.kind == "sync" else voxvec.local.async_client()


def test_missing_weights_are_an_error_of_voxvec_with_the_line_to_install_them(twin, missing, tmp_path):
    with pytest.raises(ConfigError) as refused:
        twin.embedder("all-MiniLM-L6-v2", client=missing).embed(["a", "long " * 200])

    assert str(refused.value).startswith(f"the weights of all-MiniLM-L6-v2 are not installed in {tmp_path}")
    assert "voxvec local install" in str(refused.value)
    assert "server" not in str(refused.value)


@pytest.mark.parametrize("spoilt", [weights.WEIGHTS, weights.VOCABULARY])
def test_damaged_weights_are_an_error_with_what_to_do(installed, bare, monkeypatch, tmp_path, spoilt):
    (tmp_path / weights.WEIGHTS).symlink_to(installed / weights.WEIGHTS)
    (tmp_path / weights.VOCABULARY).symlink_to(installed / weights.VOCABULARY)
    (tmp_path / spoilt).unlink()
    (tmp_path / spoilt).write_text("[UNK] and nothing else")
    monkeypatch.setattr(weights, "find", lambda: tmp_path)

    with pytest.raises(ConfigError, match=r"are damaged: .* Delete the folder"):
        bare.embeddings.create(model="all-MiniLM-L6-v2", input="a")


def transcribe(twin, client, name, data, tmp_path):
    file = tmp_path / name
    file.write_bytes(data)
    cls = voxvec.Transcriber if twin.kind == "sync" else voxvec.AsyncTranscriber
    return twin.face(cls("pocketsphinx-en-us", client=client)).transcribe(file)


def test_a_missing_recogniser_is_an_error_with_the_line_to_install_it(twin, missing, wav, tmp_path):
    with pytest.raises(MissingExtraError, match=r"pip install 'voxvec\[local\]'"):
        transcribe(twin, missing, "a.wav", wav(np.zeros(9000)), tmp_path)


def test_a_missing_decoder_is_an_error_with_the_line_to_install_it(twin, missing, tmp_path):
    # A header alone: 16 kHz, mono, 16 bits, one second.
    header = bytes.fromhex("664c614380000022100010000000000000000003e800f0") + (16_000).to_bytes(3) + bytes(16)

    with pytest.raises(MissingExtraError, match=r"^reading FLAC needs an optional .*'voxvec\[audio\]'$") as refused:
        transcribe(twin, missing, "a.flac", header, tmp_path)
    assert refused.value.extra == "audio"


def test_an_unknown_model_is_still_a_server_s_answer(twin, missing):
    with pytest.raises(RefusedError, match=r"`all-MiniLM-L6-v2` for texts"):
        twin.embedder("text-embedding-3-small", client=missing).embed(["a"])


# -- what it cannot do


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

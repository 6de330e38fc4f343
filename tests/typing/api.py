"""What type checkers must make of the public names; checked by mypy and pyright, never run."""

from collections.abc import AsyncIterator, Iterator, Mapping
from decimal import Decimal
from typing import assert_type

import numpy as np
import numpy.typing as npt

import voxvec as vv

# -- text to vectors

embedder = vv.Embedder("text-embedding-3-small", dimensions=256, cache="vectors.db", on_long="chunk")
vectors = embedder.embed(["a", "b"], input_type="query", on_error="keep", progress=print)
assert_type(vectors, vv.Embeddings)
assert_type(vectors.array, npt.NDArray[np.float32])
assert_type(vectors[0], npt.NDArray[np.float32])
assert_type(vectors[1:], npt.NDArray[np.float32])
assert_type(vectors.shape, tuple[int, int])
assert_type(vectors.cost, Decimal | None)
assert_type(vectors.failed, Mapping[int, vv.VoxvecError])
assert_type(vectors.usage.tokens, int)
assert_type(vectors.shrink(64), vv.Embeddings)
assert_type(vectors.tolist(), list[list[float]])
assert_type(vv.Embeddings.load("vectors.npz"), vv.Embeddings)
assert_type(embedder.embed_one("a"), npt.NDArray[np.float32])
assert_type(embedder.plan(["a"]), vv.EmbeddingPlan)
assert_type(embedder.plan(["a"]).refused, Mapping[int, str])
assert_type(embedder.stream(text for text in "ab"), Iterator[vv.Embeddings])
assert_type(embedder.model, vv.EmbeddingModel)

# Columns of many kinds are texts.
embedder.embed(("a", "b"))
embedder.embed({"a", "b"})
embedder.embed({"a": 1})
embedder.embed(text for text in ["a"])
embedder.embed(iter(["a"]))
embedder.embed(np.array(["a"]))

# A model may be known by name, by description, or to the server only.
vv.Embedder(vv.models.find("text-embedding-3-large", dims=1024))
vv.Embedder("somebody/else", base_url="http://localhost:8000/v1", api_key="x")
vv.Embedder("text-embedding-3-small", retry=vv.Retry(attempts=3, budget=vv.Budget()), pace=vv.Pace(requests=500))
vv.Embedder("text-embedding-3-small", cache=vv.MemoryCache(max_bytes=2**20))

# What is wrong is found before it runs.
embedder.embed("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] -- a str is not a list of texts
embedder.embed([1])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType] -- numbers are no texts
embedder.embed(["a"], input_type="both")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
embedder.embed(["a"], on_error="ignore")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
vv.Embedder("text-embedding-3-small", on_long="cut")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
vectors.model = "other"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue] -- frozen


async def embed() -> None:
    """The same for tasks."""
    async with vv.AsyncEmbedder("text-embedding-3-small") as embedder:
        assert_type(embedder, vv.AsyncEmbedder)
        assert_type(await embedder.embed(["a"]), vv.Embeddings)
        assert_type(await embedder.embed_one("a"), npt.NDArray[np.float32])
        assert_type(await embedder.plan(["a"]), vv.EmbeddingPlan)
        parts = embedder.stream(["a"])
        assert_type(parts, AsyncIterator[vv.Embeddings])
        async for part in embedder.stream(numbered()):
            assert_type(part, vv.Embeddings)


async def numbered() -> AsyncIterator[str]:
    """Texts that come one by one."""
    yield "a"


# -- what can go wrong

try:
    embedder.embed(["a"])
except vv.ServiceError as error:
    assert_type(error.status, int | None)
    assert_type(error.positions, tuple[int, ...])
    assert_type(error.partial, vv.Embeddings | None)
    assert_type(error.done, int | None)
except ValueError as error:
    assert_type(error, ValueError)

# -- audio to text

transcriber = vv.Transcriber("gpt-transcribe", cache="transcripts.db")
transcript = transcriber.transcribe("meeting.m4a", language="ko", keywords=["voxvec"])
assert_type(transcript, vv.Transcript)
assert_type(transcript.text, str)
assert_type(transcript.segments, tuple[vv.Segment, ...])
assert_type(transcriber.plan(b"RIFF"), vv.TranscriptionPlan)


async def transcribe() -> None:
    """The same for tasks."""
    async with vv.AsyncTranscriber("whisper-1") as transcriber:
        assert_type(await transcriber.transcribe("meeting.m4a"), vv.Transcript)


# -- models

assert_type(vv.models.find("text-embedding-3-small"), vv.EmbeddingModel)
assert_type(vv.models.find("whisper-1"), vv.TranscriptionModel)
assert_type(vv.models.find("anything", kind="embedding"), vv.EmbeddingModel)

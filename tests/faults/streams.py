"""A server that costs next to nothing, so that what is measured is the client; and how much a process grows.

    python -m tests.faults.streams 10_000_000

streams so many texts, and prints by how much the process grew.
"""

import base64
import json
import os
import resource
import sys
import zlib

import httpx2
import numpy as np
import openai

import voxvec as vv
from voxvec.local.exchange import Reply
from voxvec.local.transport import AsyncLocalTransport, LocalTransport

DIMS = 8
SMALL = vv.models.find("text-embedding-3-small", dims=DIMS)
MEBIBYTE = 2**20


def vectors_of(texts):
    """Unit vectors out of checksums: different for different texts, the same in every process."""
    sums = np.fromiter((zlib.crc32(text.encode()) for text in texts), np.uint32, len(texts))
    angles = sums[:, None] * np.linspace(1e-9, 1e-8, DIMS // 2)
    rows = np.concatenate([np.cos(angles), np.sin(angles)], axis=1) / np.sqrt(DIMS // 2)
    return rows.astype("<f4")


def answer(request):
    """An answer of ``/embeddings``."""
    texts = json.loads(request.body)["input"]
    rows = (base64.b64encode(row.tobytes()).decode() for row in vectors_of(texts))
    items = ",".join(f'{{"index":{at},"embedding":"{row}"}}' for at, row in enumerate(rows))
    usage = f'"usage":{{"prompt_tokens":{3 * len(texts)}}}'
    return Reply(200, {"content-type": "application/json"}, f'{{"data":[{items}],{usage}}}'.encode())


def client(responder=answer):
    """A client whose requests end in this process."""
    return openai.OpenAI(api_key="sk-canary", http_client=httpx2.Client(transport=LocalTransport(responder)))


def async_client(responder=answer):
    """The same for tasks."""
    return openai.AsyncOpenAI(
        api_key="sk-canary", http_client=httpx2.AsyncClient(transport=AsyncLocalTransport(responder))
    )


def resident():
    """Memory of this process now [bytes]; what it was at most where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 -- no file
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def growth(n):
    """How much a process grows while it streams so many texts [MiB], after it has warmed up."""
    with vv.Embedder(SMALL, client=client(), workers=4) as embedder:
        base, most, seen = 0, 0, 0
        for part in embedder.stream(f"text {at}" for at in range(n)):
            seen += len(part)
            if seen >= n // 10:
                base = base or resident()
                most = max(most, resident())
    assert seen == n
    return (most - base) / MEBIBYTE


if __name__ == "__main__":
    count = int(sys.argv[1])
    sys.stdout.write(f"{growth(count):.1f} MiB for {count:,} texts\n")

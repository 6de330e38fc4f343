"""What importing costs: ``python -m tests.benchmarks.bench_import [--runs 15]``.

Each case is timed in a fresh process, and the cases take turns, so that a ratio compares neighbours in time: printed is
the median of the ratios to ``import openai`` of the same turn, once by the clock on the wall and once by CPU seconds,
which other programs disturb less. "first request ready" ends where the first byte would leave, at a refused connection
on the loopback; "the same by hand" is what nobody can do without who sends through openai and wants float32: both
imports, a client, a request.
"""

import argparse
import os
import statistics
import subprocess
import sys

BASE = "import openai"
CASES = {
    BASE: BASE,
    "import voxvec": "import voxvec",
    "making an Embedder": "import voxvec; voxvec.Embedder('text-embedding-3-small')",
    "the same by hand": (
        "import numpy, openai\n"
        "client = openai.OpenAI(api_key='sk-none', base_url='http://127.0.0.1:9/v1', max_retries=0)\n"
        "try: client.embeddings.create(model='text-embedding-3-small', input=['kitten'])\n"
        "except openai.APIConnectionError: pass"
    ),
    "first request ready": (
        "import voxvec\n"
        "embedder = voxvec.Embedder('text-embedding-3-small', api_key='sk-none', base_url='http://127.0.0.1:9/v1',"
        " retry=voxvec.Retry(attempts=1))\n"
        "try: embedder.embed(['kitten'])\n"
        "except voxvec.NetworkError: pass"
    ),
}
CLOCKS = ("wall", "CPU")


def environment() -> dict[str, str]:
    """Compiled modules are kept, as in any installation, and NumPy's idle threads, which spin, are not counted."""
    given = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**given, "OPENBLAS_NUM_THREADS": "1"}


def milliseconds(code: str) -> tuple[float, float]:
    """By the clock on the wall, and of the processor [ms]."""
    timed = (
        "import time; wall, cpu = time.perf_counter(), time.process_time()\n"
        f"{code}\n"
        "print(time.perf_counter() - wall, time.process_time() - cpu)"
    )
    command = [sys.executable, "-c", timed]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment())  # noqa: S603 -- our own code
    wall, cpu = (1000 * float(seconds) for seconds in done.stdout.split())
    return wall, cpu


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--runs", type=int, default=15)
    runs = arguments.parse_args().runs
    for code in CASES.values():
        milliseconds(code)  # compiles what is not compiled yet
    turns = [{name: milliseconds(code) for name, code in CASES.items()} for _ in range(runs)]
    for name in CASES:
        print(f"{name:20}", end="")  # noqa: T201 -- a report
        for at, clock in enumerate(CLOCKS):
            spent = statistics.median(turn[name][at] for turn in turns)
            ratio = statistics.median(turn[name][at] / turn[BASE][at] for turn in turns)
            print(f"{spent:7.0f} ms {clock}, {ratio:5.2f} x", end="   ")  # noqa: T201
        print()  # noqa: T201


if __name__ == "__main__":
    main()

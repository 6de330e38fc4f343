"""What importing costs: ``python -m tests.benchmarks.bench_import [--runs 15]``.

Each case is timed in a fresh process, the cases interleaved; medians of CPU milliseconds, and ratios to ``import
openai`` of the same run. "first request ready" ends where the first byte would leave: at a refused connection on the
loopback.
"""

import argparse
import statistics
import subprocess
import sys

CASES = {
    "import openai": "import openai",
    "import voxvec": "import voxvec",
    "making an Embedder": "import voxvec; voxvec.Embedder('text-embedding-3-small')",
    "first request ready": (
        "import voxvec\n"
        "embedder = voxvec.Embedder('text-embedding-3-small', api_key='sk-none', base_url='http://127.0.0.1:9/v1',"
        " retry=voxvec.Retry(attempts=1))\n"
        "try: embedder.embed(['kitten'])\n"
        "except voxvec.NetworkError: pass"
    ),
}


def milliseconds(code: str) -> float:
    timed = f"import time; start = time.perf_counter()\n{code}\nprint(time.perf_counter() - start)"
    done = subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, check=True)  # noqa: S603 -- our own code
    return 1000 * float(done.stdout)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--runs", type=int, default=15)
    runs = arguments.parse_args().runs
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(runs):
        for name, code in CASES.items():
            times[name].append(milliseconds(code))
    openai = statistics.median(times["import openai"])
    for name, measured in times.items():
        median = statistics.median(measured)
        print(f"{name:22} {median:7.0f} ms   {median / openai:5.2f} x import openai")  # noqa: T201 -- a report


if __name__ == "__main__":
    main()

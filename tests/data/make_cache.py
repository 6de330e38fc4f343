"""Make ``cache-1.db.gz``, the file of the first format that every later version must read. It is never made again."""

import array
import gzip
import json
import tempfile
from pathlib import Path

from voxvec import rows
from voxvec.caches import SqliteCache


def main():
    def vector(number, numbers, tokens, model):
        name, payload = number.to_bytes(32, "big"), array.array("f", numbers).tobytes()
        head = {"kind": rows.Kind.VECTOR, "width": len(numbers), "tokens": tokens, "model": model}
        return {name: rows.pack(name, payload, **head)}

    text, name = json.dumps({"text": "kitten", "usage": {"seconds": 3}}).encode(), (3).to_bytes(32, "big")
    document = rows.pack(name, text, kind=rows.Kind.DOCUMENT, width=len(text), tokens=None, model="gpt-transcribe")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cache.db"
        with SqliteCache(path) as cache:
            cache.set_many(vector(0, [1.0, -2.0, 0.5], 7, "text-embedding-3-small"))
            cache.set_many(vector(1, [at / 8 for at in range(1_536)], 2, "text-embedding-3-small"))
            cache.set_many(vector(2, [0.25], None, "모델"))
            cache.set_many({name: document})
        (Path(__file__).parent / "cache-1.db.gz").write_bytes(gzip.compress(path.read_bytes(), 9, mtime=0))


if __name__ == "__main__":
    main()

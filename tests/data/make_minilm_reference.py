"""Writes minilm.json: what sentence-transformers itself makes of a few texts.

Run with a Python that has sentence-transformers, and the folder of all-MiniLM-L6-v2::

    python make_minilm_reference.py MODEL_FOLDER > minilm.json
"""

import base64
import json
import sys

import sentence_transformers
from sentence_transformers import SentenceTransformer

STORY = (
    "The ferry left before sunrise, and nobody on the pier could say where it was bound. "
    "A boy had counted the lamps along its rail; his grandmother had counted the passengers. "
)
TEXTS = [
    "cat",
    "How do I reset my password?",
    "The movie is awesome; I'd watch it again -- twice!",
    STORY * 12,
    "Ünïcödé façades in São Paulo, Łódź and Kraków",
    "안녕하세요, 세계! 오늘 날씨가 좋네요.",
    "猫が好きです。你好,世界。",
    "Привет, мир! ΟΔΥΣΣΕΥΣ",
    "مرحبا بالعالم नमस्ते दुनिया",
    "line one\nline two\ttabbed\r\n\u200bzero\u00a0width \u2260 equal",
    "[CLS]-like tokens: {a: 1}, <b>, $3.50, 50%, x_y@example.com",
    "a" * 120 + " fits in no vocabulary 🙂🚀",
    "3.14159 26535 89793",
]


def main() -> None:
    """Print the table."""
    model = SentenceTransformer(sys.argv[1], device="cpu")
    # The library takes a literal "[CLS]" for the special token; voxvec never does, so it stays out of the table.
    texts = [text.replace("[CLS]", "(CLS)") for text in TEXTS]
    rows = model.encode(texts, batch_size=1, convert_to_numpy=True).astype("<f4")
    ids = [model.tokenizer(text, truncation=True, max_length=256)["input_ids"] for text in texts]
    table = [
        {"text": text, "ids": tokens, "vector": base64.b64encode(row.tobytes()).decode("ascii")}
        for text, tokens, row in zip(texts, ids, rows, strict=True)
    ]
    made_by = f"sentence-transformers {sentence_transformers.__version__}, sentence-transformers/all-MiniLM-L6-v2"
    json.dump({"made_by": made_by, "rows": table}, sys.stdout, ensure_ascii=False, indent=1)


if __name__ == "__main__":
    main()

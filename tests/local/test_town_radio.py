import io
import wave

import numpy as np
import pytest

import voxvec.local

demo = voxvec.local.demo_recording()


def test_the_recording_is_what_the_table_says():
    with wave.open(io.BytesIO(demo.audio)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(float)
        seconds = file.getnframes() / file.getframerate()
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)

    assert 35 < seconds < 50
    assert len(demo.audio) < 1_600_000
    assert len(demo.lines) == 8
    for before, after in zip(demo.lines, demo.lines[1:], strict=False):
        assert after.start - before.end == pytest.approx(0.8, abs=0.002)
        assert not samples[int(before.end * 16_000) + 16 : int(after.start * 16_000) - 16].any()
    assert demo.lines[-1].end < seconds


def test_every_question_has_its_line():
    assert [demo.lines[question.line].text.split()[0] for question in demo.questions] == ["Heavy", "The", "The"]


@pytest.mark.slow
def test_every_question_finds_its_line_in_the_recognised_text(installed):
    pytest.importorskip("pocketsphinx")
    client = voxvec.local.client()
    heard = client.audio.transcriptions.create(
        model="pocketsphinx-en-us",
        file=(demo.name, demo.audio),
        response_format="verbose_json",
        timestamp_granularities=["segment"],
    )

    def embed(texts):
        return np.array(
            [item.embedding for item in client.embeddings.create(model="all-MiniLM-L6-v2", input=texts).data]
        )

    scores = embed([question.text for question in demo.questions]) @ embed([s.text for s in heard.segments]).T
    for question, row in zip(demo.questions, scores, strict=True):
        best, second = np.sort(row)[::-1][:2]
        found = heard.segments[int(row.argmax())]
        assert best > second + 0.2
        assert demo.lines[question.line].start <= found.start < found.end <= demo.lines[question.line].end + 0.1
    assert len(heard.segments) == len(demo.lines)

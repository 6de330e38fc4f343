"""Makes the recording that ``voxvec demo`` transcribes, and the table of what is said in it when.

Needs ``flite`` (Debian: ``apt-get install flite``) and the standard library::

    python tests/data/make_demo_recording.py src/voxvec/local/demo
"""

import json
import subprocess
import sys
import tempfile
import wave
from pathlib import Path

RATE = 16_000
PAUSE = 0.8
VOICE = "kal16"
LINES = [
    "Good morning. This is the town radio with six short stories.",
    "Heavy rain and strong winds will reach the coast tonight, and the roads may be under water.",
    "The school on the hill has a new music teacher, and the children will learn to play the piano.",
    "Doctors say that people who walk for one hour every day have a stronger heart and sleep better.",
    "The bank is closing its office on Main Street. Customers can get cash from the machine at the market.",
    "The home team won the football game, and the players will travel to London for the final match.",
    "The museum has opened a room full of old ships, and the door is free for families on Sunday.",
    "That is all for today. Thank you for listening.",
]
QUESTIONS = {"Is a storm coming?": 1, "Who will teach the pupils an instrument?": 2, "Who won the match?": 5}


def speak(line: str, folder: Path) -> bytes:
    """One line as 16-bit samples."""
    path = folder / "line.wav"
    subprocess.run(["flite", "-voice", VOICE, "-t", line, "-o", str(path)], check=True)  # noqa: S603, S607 -- our own words
    with wave.open(str(path)) as file:
        if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (RATE, 1, 2):
            raise SystemExit(f"the voice {VOICE} does not speak 16-bit mono at {RATE} Hz")
        return file.readframes(file.getnframes())


def main() -> None:
    """Write the recording and its table."""
    target = Path(sys.argv[1])
    samples, lines = b"", []
    with tempfile.TemporaryDirectory() as folder:
        for text in LINES:
            start = len(samples) / 2 / RATE
            samples += speak(text, Path(folder))
            lines.append({"text": text, "start": round(start, 3), "end": round(len(samples) / 2 / RATE, 3)})
            samples += bytes(int(PAUSE * RATE) * 2)
    with wave.open(str(target / "town-radio.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples)
    questions = [{"text": text, "line": line} for text, line in QUESTIONS.items()]
    table = {"made_with": f"flite, voice {VOICE}", "lines": lines, "questions": questions}
    (target / "town-radio.json").write_text(json.dumps(table, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()

"""A recording → its bytes, its container, its length.

Bytes are read once and kept, so that a second try sends the same. What a recording is, its bytes say, not
its name. Whatever is amiss is an `AudioError` before anything is sent. It knows no model and no server.

Sources:
    WAV: Microsoft, *Multimedia Programming Interface and Data Specifications 1.0* (1991), EBU Tech 3306 (RF64);
    FLAC: RFC 9639; MP3: ISO/IEC 11172-3 and 13818-3, with the Xing, LAME and VBRI headers as encoders write them;
    ID3: https://id3.org/id3v2.4.0-structure; ADTS: ISO/IEC 13818-7; MP4: ISO/IEC 14496-12; Matroska: RFC 8794.

The file is long because each container tells its length in its own way.
"""

# ruff: noqa: PLR2004 -- the numbers are those of the formats, whose definitions are named above

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import stat
import struct
from collections import Counter
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol, TypeAlias, runtime_checkable

from voxvec.errors import AudioError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Audio", "Source", "read", "seconds", "sniff"]

Source: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO"
"""A recording: a path, its bytes, or a binary file."""

_PIECE = 1 << 20
_NO_PATH = "this is a text, and no path; give audio data as bytes"

_CONTAINERS = "wav, flac, mp3, ogg, webm, mkv, mp4, m4a, mov, aac, aiff, amr or caf"
# The first that matches; those that begin with a length are safe from texts, which have no bytes so low.
_SIGNATURES = (
    ("ogg", rb"OggS"),
    ("flac", rb"fLaC"),
    ("caf", rb"caff"),
    ("amr", rb"#!AMR"),
    ("wav", rb"(RIFF|RF64|BW64).{4}WAVE"),
    ("aiff", rb"FORM.{4}AIF[FC]"),
    ("webm", rb"\x1a\x45\xdf\xa3.{0,200}?\x42\x82[\x80-\xff]webm"),
    ("mkv", rb"\x1a\x45\xdf\xa3.{0,200}?\x42\x82[\x80-\xff]matroska"),
    ("mov", rb"[\x00-\x1f].{3}(moov|mdat|wide|ftypqt  )"),
    (None, rb".{4}ftyp(hei[cx]|mif1|msf1|avif|crx )"),
    ("m4a", rb".{4}ftyp(.{4}){0,10}?M4[ABP] "),
    ("mp4", rb".{4}ftyp"),
)
_NOT_SOUND = (
    ("a web page or other markup", rb"(\xef\xbb\xbf)?\s*<"),
    ("an archive or a document", rb"PK\x03\x04|\x1f\x8b|7z\xbc|%PDF"),
    ("a picture", rb"\x89PNG|\xff\xd8\xff|GIF8|.{4}ftyp"),
    ("Windows Media", rb"\x30\x26\xb2\x75"),
    ("text", rb"[\s\x21-\x7e]+\Z"),
)
_WAV_LINEAR = {1, 3, 6, 7}  # PCM, float, A-law, μ-law: every sample takes the same room
_UNKNOWN_SIZE = 0xFFFF_FFFF
_PIPED_SIZE = 0x7FFF_0000
# Kilobits per second by (MPEG-1 or later and lower rates, layer) and the index in the frame's header, from 1.
_MP3_KILOBITS = {
    (True, 1): range(32, 449, 32),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
# How PyAV calls them. Left to guess it might take a disguised playlist for one, and open what stands in it.
_FORMATS = {
    "aac": "aac",
    "aiff": "aiff",
    "amr": "amr",
    "caf": "caf",
    "flac": "flac",
    "m4a": "mov",
    "mkv": "matroska",
    "mov": "mov",
    "mp3": "mp3",
    "mp4": "mov",
    "ogg": "ogg",
    "wav": "wav",
    "webm": "matroska",
}
# The bits that every frame has; the rest is looked at one by one.
_MP3_SYNC = re.compile(rb"\xff(?=[\xe2-\xe7\xf2-\xf7\xfa-\xff][\x10-\xef])")
# Bounds on the time that a file made for it could take: in noise a frame seems to begin every 3,000 bytes.
_MOST_TRIES = 100_000
_MOST_TAGS = 100
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|data:")


@dataclass(frozen=True, slots=True)
class Audio:
    """A recording, read into memory.

    Attributes:
        data: All of its bytes.
        name: Base name of the file it came from, for messages only.
        container: Kind of file: one of ``wav flac mp3 ogg webm mkv mp4 m4a mov aac aiff amr caf``.
        seconds: Length as its header has it [s], or None if that cannot be told.
        sha256: Digest of ``data``, in hexadecimal.
    """

    data: bytes = field(repr=False)
    name: str | None
    container: str
    seconds: float | None
    sha256: str


def read(audio: Source, *, max_bytes: int = 2 << 30) -> Audio:
    """Read a recording.

    Args:
        audio: A path, the bytes themselves, or a binary file, which is read once from its current position
            and neither rewound nor closed.
        max_bytes: Most that is read [bytes]; 2 GiB if nothing is said.

    Raises:
        AudioError: It cannot be read, is empty, too large, damaged, or no recording at all; nothing was sent.
    """
    name, data = _take(audio, max_bytes)
    what = repr(name) if name else "the recording"
    if not data:
        raise _refused(f"{what} is empty (0 bytes); record or copy it again")
    if len(data) > max_bytes:
        raise _refused(f"{what} has more than {max_bytes:,} bytes, the most that can be sent; compress it or cut it")
    container = sniff(data)
    if container is None:
        unknown = f"of an unknown kind (it begins with {data[:8].hex(' ')})"
        kind = next((kind for kind, start in _NOT_SOUND if re.match(start, data[:64], re.DOTALL)), unknown)
        raise _refused(f"{what} is {kind}, not {_CONTAINERS}; convert it")
    try:
        length = seconds(data, container)
    except AudioError as error:
        raise AudioError(f"{what} cannot be used: {error}") from None
    return Audio(data, name, container, length, hashlib.sha256(data).hexdigest())


def _refused(why: str) -> AudioError:
    return AudioError(f"{why}; nothing was sent")


@runtime_checkable
class _Readable(Protocol):
    def read(self, size: int, /) -> object: ...


def _take(audio: Source, max_bytes: int) -> tuple[str | None, bytes]:
    match audio:
        case bytes() | bytearray() | memoryview():
            return None, bytes(audio)
        case str() | os.PathLike():
            path = os.fsdecode(audio)
            return Path(path).name or path, _read_path(path, max_bytes)
        case _Readable():
            name = getattr(audio, "name", None)
            return Path(name).name if isinstance(name, str) else None, _read_file(audio, max_bytes)
        case _:
            raise _refused(f"a recording is a path, bytes or a binary file, not {type(audio).__name__}")


def _read_path(path: str, max_bytes: int) -> bytes:
    # Not shown: a URL may be signed or hold the recording itself, and what is no path may be one.
    if _URL.match(path):
        raise _refused("this is a URL, which is not fetched; download it and give the file")
    if "\0" in path:
        raise _refused(_NO_PATH)
    try:
        mode = Path(path).stat().st_mode
        if not stat.S_ISREG(mode):
            raise _refused(f"{path!r} is {_other_file(mode)}, not a file; give the path of a file, or bytes")
        # It may have become something else since: a pipe would be waited for when it is opened, a device read for ever.
        with open(path, "rb", opener=_open_without_waiting) as file:
            if not stat.S_ISREG(mode := os.fstat(file.fileno()).st_mode):
                raise _refused(f"{path!r} is {_other_file(mode)}, not a file; give the path of a file, or bytes")
            return _read_file(file, max_bytes)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise _refused(_NO_PATH) from None
        raise _refused(
            f"{path!r} cannot be read: {error.strerror or error}; check its path and its permissions"
        ) from None


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _other_file(mode: int) -> str:
    kinds = {stat.S_ISDIR: "a directory", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}
    return next((kind for is_kind, kind in kinds.items() if is_kind(mode)), "a device")


def _read_file(file: _Readable, max_bytes: int) -> bytes:
    if isinstance(file, io.TextIOBase):
        raise _refused('the file is open as text; open it with mode "rb"')
    try:
        return b"".join(_pieces(file, max_bytes + 1))
    except (OSError, ValueError) as error:
        if isinstance(error, AudioError):
            raise
        raise _refused(f"the file cannot be read: {str(error).rstrip('.')}") from None


def _pieces(file: _Readable, most: int) -> Iterator[bytes]:
    # Piece by piece, because read(n) sets n bytes of memory aside before it looks at the file.
    while most > 0 and (piece := file.read(min(_PIECE, most))) != b"":
        if not isinstance(piece, bytes):
            raise _refused(f"reading the file gives {type(piece).__name__}, not bytes")
        most -= len(piece)
        yield piece


def sniff(data: bytes) -> str | None:
    """Container of a recording, told by its bytes, or None if it is none that is known.

    Ogg is ``"ogg"`` whatever is in it; an ID3 tag in front is looked past.
    """
    start = _after_id3(data)
    for container, signature in _SIGNATURES:
        if re.match(signature, data[start : start + 256], re.DOTALL):
            return container
    adts = _adts_length(data, start)
    if adts and (start + adts == len(data) or _adts_length(data, start + adts)):
        return "aac"
    return "mp3" if start or _is_mp3(data, start) else None


def _after_id3(data: bytes) -> int:
    position = 0
    for _ in range(_MOST_TAGS):
        if data[position : position + 3] != b"ID3" or len(data) < position + 10:
            break
        flags, *size = data[position + 5 : position + 10]
        length = sum((byte & 0x7F) << shift for byte, shift in zip(size, (21, 14, 7, 0), strict=True))
        position += 10 + length + (10 if flags & 0x10 else 0)
    return position


def _adts_length(data: bytes, at: int) -> int:
    """Bytes of the AAC frame that begins here, or 0 if none does."""
    head = data[at : at + 7]
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or (head[2] >> 2 & 0xF) > 12:
        return 0
    length = int.from_bytes(head[3:6]) >> 5 & 0x1FFF
    return length if length > len(head) else 0


def seconds(data: bytes, container: str) -> float | None:
    """Length of a recording as its headers have it [s].

    WAV, FLAC and MP3 are read here, to the sample; other containers by PyAV if it is installed.

    Args:
        data: All of its bytes.
        container: What `sniff` says.

    Returns:
        The length, or None if the headers do not say it or PyAV is missing.

    Raises:
        AudioError: The header is damaged, a WAV file is cut off, or there is no sound in it.
    """
    exact: dict[str, Callable[[bytes], float | None]] = {
        "wav": _wav_seconds,
        "flac": _flac_seconds,
        "mp3": _mp3_seconds,
    }
    known = exact[container](data) if container in exact else None
    return _probe(data, container) if known is None else known


def _wav_seconds(data: bytes) -> float | None:
    seen: dict[bytes, bytes] = {}
    for name, body, size in _wav_chunks(data):
        if name == b"data" and (layout := _wav_layout(seen.get(b"fmt ", b""))):
            in_64_bits = size == _UNKNOWN_SIZE and b"ds64" in seen
            promised = int.from_bytes(seen[b"ds64"][8:16], "little") if in_64_bits else size
            samples = int.from_bytes(seen.get(b"fact", b"")[:4], "little")
            return _wav_length(layout, samples, promised, len(data) - body)
        if name in {b"fmt ", b"ds64", b"fact"}:
            seen[name] = data[body : body + min(size, 40)]
    raise _refused("its WAV header is damaged or cut off before the sound; save it again")


def _wav_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, begin and size of each chunk; odd ones are padded."""
    at = _after_id3(data) + 12
    while at + 8 <= len(data) and data[at]:
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], at + 8, size
        at += 8 + size + size % 2


class _WavLayout(NamedTuple):
    linear: bool
    rate: int
    frame_bytes: int
    byte_rate: int


def _wav_layout(body: bytes) -> _WavLayout | None:
    if len(body) < 16:
        return None
    tag, channels, rate, byte_rate, frame_bytes, bits = struct.unpack("<HHIIHH", body[:16])
    if tag == 0xFFFE and len(body) >= 26:
        tag = int.from_bytes(body[24:26], "little")
    linear = tag in _WAV_LINEAR
    if not (channels and rate and frame_bytes) or (linear and not 0 < channels * bits <= frame_bytes * 8):
        return None
    return _WavLayout(linear, rate, frame_bytes, byte_rate)


def _wav_length(layout: _WavLayout, samples: int, promised: int, there: int) -> float | None:
    # Who writes into a pipe cannot go back and fill in the size, and leaves 0 or about the largest number.
    piped = promised == 0 or promised > max(there, _PIPED_SIZE)
    if promised > there and not piped:
        raise _refused(
            f"it is cut off: its header promises {promised:,} bytes of sound, {there:,} are there; "
            "copy or download it again"
        )
    size = there if piped else promised
    if layout.linear:
        return size // layout.frame_bytes / layout.rate
    if samples:
        return samples / layout.rate
    return size / layout.byte_rate if layout.byte_rate else None


def _flac_seconds(data: bytes) -> float | None:
    block = _after_id3(data) + 4
    info = data[block + 4 : block + 38]
    packed = int.from_bytes(info[10:18])
    rate, samples = packed >> 44, packed & (1 << 36) - 1
    if len(info) < 34 or data[block] & 0x7F or not rate:
        raise _refused("its FLAC header is damaged; save it again")
    return samples / rate if samples else None


class _Frame(NamedTuple):
    """An MPEG audio frame: where it begins and ends, what it lasts, where its header may hide a count."""

    start: int
    end: int
    samples: int
    rate: int
    tag: int


def _frame(data: bytes, at: int) -> _Frame | None:
    head = int.from_bytes(data[at : at + 4]) if at + 4 <= len(data) else 0
    version, layer = head >> 19 & 3, 4 - (head >> 17 & 3)
    bitrate, rate = head >> 12 & 15, head >> 10 & 3
    if head >> 21 != 0x7FF or version == 1 or layer == 4 or bitrate in {0, 15} or rate == 3:
        return None
    newest = version == 3
    hertz = (44_100, 48_000, 32_000)[rate] >> {3: 0, 2: 1, 0: 2}[version]
    bits = _MP3_KILOBITS[newest, layer if newest else min(layer, 2)][bitrate - 1] * 1000
    samples = 384 if layer == 1 else 1152 if newest or layer == 2 else 576
    slot = 4 if layer == 1 else 1
    length = (samples // 8 // slot * bits // hertz + (head >> 9 & 1)) * slot
    stereo_and_mono = (32, 17) if newest else (17, 9)
    return _Frame(at, at + length, samples, hertz, at + 4 + stereo_and_mono[head >> 6 & 3 == 3])


def _is_mp3(data: bytes, at: int) -> bool:
    """Whether a frame is here, whole, with the next one, a tag or nothing behind it: four bytes prove little."""
    frame = _frame(data, at)
    if frame is None or frame.end > len(data):
        return False
    return frame.end == len(data) or data[frame.end : frame.end + 3] == b"TAG" or _frame(data, frame.end) is not None


def _next_frame(data: bytes, at: int, tries: Iterator[int]) -> _Frame | None:
    for found in _MP3_SYNC.finditer(data, at):
        if _is_mp3(data, found.start()):
            return _frame(data, found.start())
        if next(tries, None) is None:
            raise _refused("it is damaged: what looks like MP3 frames mostly is not; save it again")
    return None


def _mp3_seconds(data: bytes) -> float:
    tries = iter(range(_MOST_TRIES))
    frame = _next_frame(data, _after_id3(data), tries)
    if frame is None:
        raise _refused("it holds no MP3 frame; save it again")
    if noted := _mp3_count(data, frame):
        return noted / frame.rate
    samples: Counter[int] = Counter()
    while frame is not None:
        samples[frame.rate] += frame.samples
        following = _frame(data, frame.end)
        alike = following is not None and following[2:4] == frame[2:4] and following.end <= len(data)
        frame = following if alike else _next_frame(data, frame.end, tries)
    return sum(count / rate for rate, count in samples.items())


def _mp3_count(data: bytes, first: _Frame) -> int:
    """Samples of the recording, if the encoder noted them in the first frame in place of sound, else 0."""
    vbri = first.start + 36
    if data[vbri : vbri + 4] == b"VBRI":
        return int.from_bytes(data[vbri + 14 : vbri + 18]) * first.samples
    flags = int.from_bytes(data[first.tag + 4 : first.tag + 8])
    if data[first.tag : first.tag + 4] not in {b"Xing", b"Info"} or not flags & 1:
        return 0
    samples = int.from_bytes(data[first.tag + 8 : first.tag + 12]) * first.samples
    encoder = first.tag + 8 + sum(size for bit, size in ((1, 4), (2, 4), (4, 100), (8, 4)) if flags & bit)
    if data[encoder : encoder + 4] in {b"LAME", b"Lavf", b"Lavc"}:
        padded = int.from_bytes(data[encoder + 21 : encoder + 24])
        samples -= min(samples, (padded >> 12) + (padded & 0xFFF))
    return samples


def _probe(data: bytes, container: str) -> float | None:
    try:
        av: Any = import_module("av")
    except ImportError:
        return None
    # Titles in no known encoding are nothing to fail for; PyAV 19 has no word for it any more.
    lenient = {"metadata_errors": "ignore"} if int(av.__version__.partition(".")[0]) < 19 else {}
    try:
        with av.open(io.BytesIO(data), format=_FORMATS[container], **lenient) as file:
            return _probed_seconds(file, container, ticks=av.time_base)
    except av.error.FFmpegError as error:
        raise _refused(f"it is damaged ({error.strerror}); save it again") from None


def _probed_seconds(file: Any, container: str, *, ticks: int) -> float:
    if not file.streams.audio:
        raise _refused("there is no sound in it; record it again")
    stream = file.streams.audio[0]
    # An AAC stream has no header of its own, and what is said to be its length is a guess.
    if container != "aac" and stream.duration is not None:
        return max(0.0, float(stream.duration * stream.time_base))
    if container != "aac" and file.duration is not None:
        return max(0.0, float(file.duration / ticks))
    return float(sum((packet.duration or 0) * packet.time_base for packet in file.demux(stream)))

import hashlib
import io
import os
import socket
import struct
import sys
import tempfile
import wave
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from voxvec.errors import AudioError
from voxvec.transcription.audio import read, seconds, sniff


def chunk(name, body, size=None):
    return name + struct.pack("<I", len(body) if size is None else size) + body + b"\0" * (len(body) % 2)


def fmt(tag=1, *, channels=1, rate=8000, bits=16, align=None, tail=b""):
    align = channels * bits // 8 if align is None else align
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * align, align, bits) + tail)


def riff(*chunks, kind=b"RIFF"):
    body = b"WAVE" + b"".join(chunks)
    return kind + struct.pack("<I", len(body)) + body


def wav(frames=8000, *, rate=8000, width=2, channels=1):
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(bytes(frames * width * channels))
    return buffer.getvalue()


def flac(*, rate=44100, samples=44100 * 3):
    info = struct.pack(">HH3s3sQ16s", 4096, 4096, b"", b"", rate << 44 | 1 << 41 | 15 << 36 | samples, b"")
    return b"fLaC\x80\x00\x00\x22" + info


def id3(size=20, flags=0):
    footer = b"3DI" + bytes(7) if flags & 0x10 else b""
    return b"ID3\x04\x00" + bytes([flags, 0, 0, size >> 7, size & 127]) + bytes(size) + footer


# MPEG-1 layer III, 128 kbit/s, 44.1 kHz, stereo: 417 bytes, 1,152 samples.
FRAME = b"\xff\xfb\x90\x00" + bytes(413)


def tagged(tag, body):
    """A frame that carries a count instead of sound."""
    at = 36
    return (FRAME[:at] + tag + body + bytes(413))[:417]


class TestReading:
    @pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, io.BytesIO])
    def test_bytes_and_files_give_the_same_recording(self, wrap):
        audio = read(wrap(wav()))

        assert (audio.data, audio.name, audio.container, audio.seconds) == (wav(), None, "wav", 1.0)
        assert type(audio.data) is bytes
        assert audio.sha256 == hashlib.sha256(wav()).hexdigest()

    @pytest.mark.parametrize("kind", [str, Path])
    def test_a_path_lends_its_base_name_and_no_belief_is_put_in_its_suffix(self, tmp_path, kind):
        path = tmp_path / "회의.MP3"
        path.write_bytes(wav())

        assert (read(kind(path)).name, read(kind(path)).container) == ("회의.MP3", "wav")

    def test_a_file_is_read_once_from_where_it_stands_and_left_open(self):
        file = io.BytesIO(b"skip" + wav())
        file.seek(4)

        assert read(file).data == wav()
        assert file.tell() == len(wav()) + 4
        with pytest.raises(AudioError, match="empty"):
            read(file)

    def test_a_file_object_lends_its_name_if_it_has_one(self, tmp_path):
        (tmp_path / "a.wav").write_bytes(wav())

        with (tmp_path / "a.wav").open("rb") as file:
            assert read(file).name == "a.wav"
        with tempfile.TemporaryFile() as file:
            file.write(wav())
            file.seek(0)
            assert read(file).name is None

    def test_a_stream_that_gives_little_at_a_time_and_cannot_seek_is_read_to_its_end(self):
        reader, writer = os.pipe()
        os.write(writer, wav(100)[:120])
        os.write(writer, wav(100)[120:])
        os.close(writer)

        with open(reader, "rb", buffering=0) as file:  # noqa: PTH123 -- a descriptor
            assert read(file).data == wav(100)

    def test_the_bytes_stay_out_of_the_repr(self):
        assert "RIFF" not in repr(read(wav()))

    def test_a_text_file_is_refused(self, tmp_path):
        (tmp_path / "a.wav").write_bytes(wav())

        with (tmp_path / "a.wav").open(encoding="latin-1") as file, pytest.raises(AudioError, match='mode "rb"'):
            read(file)

    @pytest.mark.parametrize(("given", "kind"), [("text", "str"), (None, "NoneType")])
    def test_a_file_that_gives_no_bytes_is_refused(self, given, kind):
        class Odd:
            def read(self, size):
                return given

        with pytest.raises(AudioError, match=f"gives {kind}, not bytes"):
            read(Odd())

    def test_a_closed_file_is_refused(self):
        file = io.BytesIO(wav())
        file.close()

        with pytest.raises(AudioError, match="closed file; nothing was sent"):
            read(file)

    @pytest.mark.parametrize("thing", [None, 7, ["a.wav"], object()])
    def test_what_is_no_source_is_refused(self, thing):
        with pytest.raises(AudioError, match=f"not {type(thing).__name__}; nothing was sent"):
            read(thing)

    @pytest.mark.case("I14")
    @pytest.mark.parametrize(
        "url", ["http://x.example/a.wav", "https://x.example/a", "file:///a.wav", "S3://b/k", "data:audio/wav;base64,"]
    )
    def test_a_url_is_not_fetched(self, url):
        with pytest.raises(AudioError, match="is a URL, which is not fetched; download it"):
            read(url)

    @pytest.mark.case("F50")
    def test_bytes_given_as_text_are_refused_and_not_shown(self):
        for text in (wav().decode("latin-1"), "UklGRiQA" * 200):
            with pytest.raises(AudioError, match="and no path; give audio data as bytes") as caught:
                read(text)
            assert text[:8] not in str(caught.value)

    @pytest.mark.case("F50")
    def test_a_signed_url_is_not_shown(self):
        with pytest.raises(AudioError) as caught:
            read("https://x.example/a.wav?signature=hunter2")
        assert "hunter2" not in str(caught.value)

    @pytest.mark.case("I11")
    @pytest.mark.skipif(sys.platform == "win32", reason="has no such files")
    def test_what_is_no_file_is_named(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(tmp_path / "socket"))
            for path, kind in [(tmp_path, "directory"), ("pipe", "pipe"), ("socket", "socket"), (os.devnull, "device")]:
                with pytest.raises(
                    AudioError, match=f"is a {kind}, not a file; give the path of a file, or bytes; nothing was sent"
                ):
                    read(tmp_path / path)

    def test_a_file_that_is_missing_or_forbidden_is_refused_with_the_reason(self, tmp_path, monkeypatch):
        with pytest.raises(
            AudioError, match=r"gone.wav' cannot be read: No such file.*; check its path.*; nothing was sent"
        ):
            read(tmp_path / "gone.wav")
        (tmp_path / "a.wav").write_bytes(wav())
        monkeypatch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
        with pytest.raises(AudioError, match="Permission denied"):
            read(tmp_path / "a.wav")

    def test_an_empty_recording_is_refused(self, tmp_path):
        (tmp_path / "a.wav").touch()

        with pytest.raises(
            AudioError, match=r"'a.wav' is empty \(0 bytes\); record or copy it again; nothing was sent"
        ):
            read(tmp_path / "a.wav")
        with pytest.raises(AudioError, match="the recording is empty"):
            read(b"")

    def test_no_more_than_the_allowed_bytes_are_read(self, tmp_path):
        (tmp_path / "a.wav").write_bytes(wav())
        endless = io.BytesIO(wav(100_000))

        for source in (tmp_path / "a.wav", wav(), io.BytesIO(wav()), endless):
            with pytest.raises(AudioError, match="more than 100 bytes"):
                read(source, max_bytes=100)
        assert endless.tell() == 101
        assert read(wav(), max_bytes=len(wav())).seconds == 1

    @pytest.mark.parametrize(
        ("data", "kind"),
        [
            (b"<!DOCTYPE html><html>", "a web page"),
            (b"\xef\xbb\xbf\n<html>", "a web page"),
            (b"PK\x03\x04\x00", "an archive"),
            (b"%PDF-1.7", "an archive or a document"),
            (b"\x89PNG\r\n", "a picture"),
            (b"\x00\x00\x00\x1cftypheic", "a picture"),
            (b"\x30\x26\xb2\x75\x8e\x66", "Windows Media"),
            (b"The wide river.\n", "text"),
            (b'{"a": 1}', "text"),
            (b"RIFF\x00\x00\x00\x00AVI LIST", r"of an unknown kind \(it begins with 52 49 46 46"),
            (b"\x00\x01\x02", "of an unknown kind"),
        ],
    )
    def test_what_is_no_recording_is_named_and_what_would_do_too(self, data, kind):
        assert sniff(data) is None
        with pytest.raises(AudioError, match=rf"the recording is {kind}.*not wav, flac.*nothing was sent"):
            read(data)

    def test_a_damaged_recording_is_refused_by_name(self, tmp_path):
        (tmp_path / "a.wav").write_bytes(wav()[:9000])

        with pytest.raises(
            AudioError, match=r"'a.wav' cannot be used: it is cut off: its header promises 16,000 bytes"
        ):
            read(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("head", "container"),
    [
        (b"RIFF\xff\xff\xff\xffWAVE", "wav"),
        (b"RF64\xff\xff\xff\xffWAVE", "wav"),
        (b"BW64\xff\xff\xff\xffWAVE", "wav"),
        (b"fLaC", "flac"),
        (id3() + b"fLaC", "flac"),
        (b"OggS\x00\x02", "ogg"),
        (b"caff\x00\x01", "caf"),
        (b"#!AMR\n", "amr"),
        (b"#!AMR-WB\n", "amr"),
        (b"FORM\x00\x00\x00\x00AIFF", "aiff"),
        (b"FORM\x00\x00\x00\x00AIFC", "aiff"),
        (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm", "webm"),
        (b"\x1a\x45\xdf\xa3\xa3\x42\x86\x81\x01\x42\x82\x88matroska", "mkv"),
        (b"\x1a\x45\xdf\xa3\xa3\x42\x86\x81\x01\x42\x82\x85other", None),
        (b"\x00\x00\x00\x1cftypM4A \x00\x00\x00\x00", "m4a"),
        (b"\x00\x00\x00\x1cftypmp42\x00\x00\x00\x00isomM4A mp42", "m4a"),
        (b"\x00\x00\x00\x1cftypisom\x00\x00\x02\x00isomiso2mp41", "mp4"),
        (b"\x00\x00\x00\x14ftypqt  ", "mov"),
        (b"\x00\x00\x00\x08wide\x00\x01", "mov"),
        (b"\x00\x00\x00\x20ftypavif", None),
        (FRAME, "mp3"),
        (FRAME * 2, "mp3"),
        (FRAME + b"TAG" + bytes(125), "mp3"),
        (FRAME + b"no", None),
        (FRAME[:100], None),
        (id3() + bytes(50) + FRAME, "mp3"),
        (id3(flags=0x10) + id3() + b"fLaC", "flac"),
        (b"\xff\xf1\x50\x80\x01\x3f\xfc" + bytes(2), "aac"),
        (b"\xff\xf1\x50\x80\x01\x3f\xfc" + bytes(3), None),
        (b"\xff\xf1\x50\x80\x00\x1f\xfc", None),
        (b"\xff\xf1\x7c\x80\x01\x3f\xfc" + bytes(2), None),
        (b"", None),
    ],
)
def test_a_container_is_told_by_its_bytes(head, container):
    assert sniff(head) == container


@given(st.integers(0, 3000), st.integers(1, 400_000), st.integers(1, 4), st.integers(1, 9))
def test_the_length_of_any_plain_wav_is_exact(frames, rate, width, channels):
    data = wav(frames, rate=rate, width=width, channels=channels)

    assert sniff(data) == "wav"
    assert seconds(data, "wav") == frames / rate


SOUND = chunk(b"data", bytes(16_000))
ADPCM = fmt(2, align=256, bits=4)
EXTENSIBLE = struct.pack("<HHI", 22, 24, 4) + struct.pack("<H", 1) + bytes(14)


@pytest.mark.parametrize(
    ("data", "length"),
    [
        pytest.param(riff(fmt(), SOUND), 1.0, id="plain"),
        pytest.param(riff(fmt(7, bits=8), SOUND), 2.0, id="mu-law"),
        pytest.param(riff(fmt(6, bits=8), SOUND), 2.0, id="a-law"),
        pytest.param(riff(fmt(3, bits=32), SOUND), 0.5, id="float"),
        pytest.param(riff(fmt(1, bits=24, align=4), SOUND), 0.5, id="24-in-32"),
        pytest.param(riff(fmt(0xFFFE, bits=32, tail=EXTENSIBLE), SOUND), 0.5, id="extensible"),
        pytest.param(riff(chunk(b"LIST", b"odd"), fmt(), chunk(b"fact", b""), SOUND, chunk(b"id3 ", b"")), 1, id="odd"),
        pytest.param(riff(fmt(), chunk(b"data", bytes(16_000), 0)), 1.0, id="piped-zero"),
        pytest.param(riff(fmt(), chunk(b"data", bytes(16_000), 0xFFFF_FFFF)), 1.0, id="piped-largest"),
        pytest.param(riff(fmt(), chunk(b"data", bytes(16_000), 0x7FFF_FFDB)), 1.0, id="piped-signed"),
        pytest.param(riff(fmt(), chunk(b"data", b"")), 0.0, id="silent"),
        pytest.param(
            riff(chunk(b"ds64", struct.pack("<QQQ", 0, 16_000, 0)), fmt(), chunk(b"data", bytes(16_000), 0xFFFF_FFFF),
                 kind=b"RF64"),
            1.0,
            id="rf64",
        ),
        pytest.param(riff(ADPCM, SOUND), 16_000 / (8000 * 256), id="adpcm"),
        pytest.param(riff(ADPCM, chunk(b"fact", struct.pack("<I", 4000)), SOUND), 0.5, id="counted"),
    ],
)  # fmt: skip
def test_wav_files_of_every_kind_are_measured(data, length):
    assert seconds(data, "wav") == length


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (
            riff(fmt(), SOUND)[:-1],
            "cut off: its header promises 16,000 bytes of sound, 15,999 are there; copy or download it again",
        ),
        (riff(fmt()), "damaged or cut off before the sound"),
        (riff(SOUND), "damaged"),
        (riff(fmt(channels=0), SOUND), "damaged"),
        (riff(fmt(rate=0), SOUND), "damaged"),
        (riff(fmt(align=0), SOUND), "damaged"),
        (riff(fmt(bits=0, align=2), SOUND), "damaged"),
        (riff(fmt(bits=32, align=2), SOUND), "damaged"),
        (riff(chunk(b"fmt ", b"short"), SOUND), "damaged"),
        (riff(bytes(4000)), "damaged"),
        (b"RIFF\x04\x00\x00\x00WAVE", "damaged"),
    ],
)
def test_a_damaged_wav_is_refused(data, reason):
    with pytest.raises(AudioError, match=f"{reason}.*nothing was sent"):
        seconds(data, "wav")


def test_a_flac_header_tells_the_length():
    assert seconds(flac(), "flac") == 3.0
    assert seconds(id3() + flac(rate=96_000, samples=48_000), "flac") == 0.5


@pytest.mark.parametrize("data", [flac()[:30], flac(rate=0), b"fLaC\x81" + flac()[5:]])
def test_a_damaged_flac_header_is_refused(data):
    with pytest.raises(AudioError, match="FLAC header is damaged; save it again; nothing was sent"):
        seconds(data, "flac")


LAME = b"LAME3.100" + bytes(12) + ((576 << 12) + 1000).to_bytes(3)


@pytest.mark.parametrize(
    ("data", "samples"),
    [
        pytest.param(FRAME * 10, 11_520, id="counted"),
        pytest.param(id3() + bytes(9) + FRAME * 10 + b"TAG" + bytes(125), 11_520, id="between-tags"),
        pytest.param(FRAME * 5 + b"\xff\xfejunk" + FRAME * 5, 11_520, id="junk"),
        pytest.param(FRAME * 5 + FRAME[:100], 5760, id="cut-off"),
        pytest.param(tagged(b"Xing", struct.pack(">II", 1, 100)) + FRAME, 115_200, id="xing"),
        pytest.param(tagged(b"Info", struct.pack(">IIII", 11, 100, 0, 0) + LAME) + FRAME, 113_624, id="lame"),
        pytest.param(tagged(b"Xing", struct.pack(">II", 5, 100) + bytes(100) + LAME) + FRAME, 113_624, id="lame-toc"),
        pytest.param(tagged(b"Info", struct.pack(">I", 0)) + FRAME, 2304, id="xing-without-count"),
        pytest.param(tagged(b"Info", struct.pack(">II", 1, 0)) + FRAME, 2304, id="xing-of-zero"),
        pytest.param(tagged(b"VBRI", struct.pack(">HHHII", 1, 0, 0, 0, 50)) + FRAME, 57_600, id="vbri"),
    ],
)
def test_the_length_of_an_mp3_is_noted_or_counted(data, samples):
    assert seconds(data, "mp3") == samples / 44_100


@pytest.mark.parametrize(
    ("header", "size", "samples", "rate"),
    [
        (0xFFFD90C0, 522, 1152, 44_100),  # MPEG-1 layer II, 160 kbit/s, mono
        (0xFFFF9200, 316, 384, 44_100),  # MPEG-1 layer I, 288 kbit/s, padded
        (0xFFF380C4, 208, 576, 22_050),  # MPEG-2 layer III, 64 kbit/s, mono
        (0xFFE38000, 417, 576, 11_025),  # MPEG-2.5 layer III, 64 kbit/s, stereo
    ],
)
def test_frames_of_every_version_and_layer_are_measured(header, size, samples, rate):
    frame = header.to_bytes(4) + bytes(size - 4)

    assert sniff(frame * 3) == "mp3"
    assert seconds(frame * 3, "mp3") == 3 * samples / rate


def test_a_change_of_rate_within_an_mp3_is_followed():
    slow = 0xFFF380C4.to_bytes(4) + bytes(204)

    assert seconds(FRAME * 2 + slow * 3, "mp3") == pytest.approx(2 * 1152 / 44_100 + 3 * 576 / 22_050)


def test_a_tag_without_sound_is_refused():
    with pytest.raises(AudioError, match="no MP3 frame"):
        seconds(id3(), "mp3")


def test_a_packed_wav_without_any_count_is_left_to_pyav(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    uncounted = chunk(b"fmt ", struct.pack("<HHIIHH", 2, 1, 8000, 0, 256, 4))

    assert seconds(riff(uncounted, SOUND), "wav") is None


def test_without_pyav_the_length_of_other_containers_is_unknown(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)

    assert seconds(b"OggS", "ogg") is None
    assert seconds(flac(samples=0), "flac") is None
    assert read(b"OggS" + bytes(100)).seconds is None


def encode(muxer, codec, *, rate=16_000, length=1.5):
    av = pytest.importorskip("av")
    np = pytest.importorskip("numpy")
    buffer = io.BytesIO()
    tone = (8000 * np.sin(np.arange(int(length * rate)) * 0.17)).astype("int16").reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
    frame.sample_rate = rate
    with av.open(buffer, "w", format=muxer) as file:
        stream = file.add_stream(codec, rate=rate, layout="mono")
        resampler = av.AudioResampler(format=stream.format.name, layout="mono", rate=rate)
        for piece in [*resampler.resample(frame), None]:
            file.mux(stream.encode(piece))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("muxer", "codec", "rate", "container", "slack"),
    [
        ("wav", "pcm_s16le", 16_000, "wav", 0),
        ("wav", "adpcm_ms", 16_000, "wav", 0.07),
        ("flac", "flac", 16_000, "flac", 0),
        ("mp3", "libmp3lame", 16_000, "mp3", 0),
        ("mp3", "libmp3lame", 44_100, "mp3", 0),
        ("ogg", "libopus", 48_000, "ogg", 0.02),
        ("webm", "libopus", 48_000, "webm", 0.02),
        ("matroska", "libopus", 48_000, "mkv", 0.02),
        ("ipod", "aac", 16_000, "m4a", 0.13),
        ("mp4", "aac", 16_000, "mp4", 0.13),
        ("mov", "aac", 16_000, "mov", 0.13),
        ("adts", "aac", 16_000, "aac", 0.13),
        ("aiff", "pcm_s16be", 16_000, "aiff", 0),
        ("caf", "pcm_s16le", 16_000, "caf", 0),
    ],
)
def test_files_made_by_a_real_encoder_are_told_and_measured(muxer, codec, rate, container, slack):
    audio = read(encode(muxer, codec, rate=rate))

    assert audio.container == container
    assert audio.seconds == pytest.approx(1.5, abs=slack or 1e-9)


def test_a_stream_without_a_length_in_its_header_is_measured_packet_by_packet(monkeypatch):
    av = pytest.importorskip("av")
    data = encode("webm", "libopus", rate=48_000)
    opened = av.open

    class Unmeasured:
        def __init__(self, file):
            self._file = file
            self.duration = None

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._file.close()

        def __getattr__(self, name):
            return getattr(self._file, name)

    monkeypatch.setattr(av, "open", lambda *args, **options: Unmeasured(opened(*args, **options)))

    assert seconds(data, "webm") == pytest.approx(1.5, abs=0.03)


def test_a_container_without_sound_is_refused():
    av = pytest.importorskip("av")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        file.mux(stream.encode(av.VideoFrame(16, 16, "yuv420p")))
        file.mux(stream.encode(None))

    with pytest.raises(AudioError, match="no sound in it; record it again; nothing was sent"):
        read(buffer.getvalue())


def test_a_damaged_container_is_refused():
    pytest.importorskip("av")
    data = encode("ipod", "aac")

    with pytest.raises(AudioError, match="it is damaged"):
        read(data[: len(data) // 2])


HEADS = [
    *[b"", b"OggS", b"fLaC", b"fLaC\x00\x00\x00\x22", b"FORM\0\0\0\0AIFF", b"caff", b"#!AMR\n", b"\0\0\0\x18ftypM4A "],
    *[b"RIFF\0\0\0\0WAVE", b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0", b"ID3\x04\0\0", FRAME[:4], FRAME, b"\xff\xf1"],
    b"\x1a\x45\xdf\xa3\x42\x82\x84webm",
]


@given(st.builds(bytes.__add__, st.sampled_from(HEADS), st.binary(max_size=300)))
@example(b"ID3\x04\0\0\x7f\x7f\x7f\x7f")
def test_any_bytes_give_a_length_or_an_audio_error(data):
    container = sniff(data)
    try:
        length = seconds(data, container) if container else None
    except AudioError as error:
        assert "nothing was sent" in str(error)  # noqa: PT017 -- only some bytes fail
    else:
        assert length is None or 0 <= length < float("inf")


@given(st.binary(max_size=200))
def test_a_wav_with_any_header_is_measured_or_refused(tail):
    data = b"RIFF\0\0\0\0WAVE" + fmt()[:8] + tail

    try:
        length = seconds(data, "wav")
    except AudioError:
        return
    assert length is None or length >= 0

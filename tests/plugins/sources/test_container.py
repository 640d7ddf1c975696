"""Containers with another length in the header than in the file."""

import io
import struct

import numpy as np
import pytest
import soundfile
from stages import folder_source
from stages.file_source import RATE, make, noise, read_all, samples_of
from stages.folder_source import names, statuses

from neurovocal.engine.contracts.errors import AudioFileError
from neurovocal.plugins.sources.audio_files.file import Recording, inspect
from neurovocal.plugins.sources.folder.source import STATE

N_BYTES = 2 * RATE  # of a second, 16 bit, mono
RIFF_TRAILER = b"guan" + struct.pack("<I", 20) + b"GUANO|Version: 1.0\n\0"
FORM_TRAILER = b"ANNO" + struct.pack(">I", 20) + b"a note on this song\0"


def values():
    return noise(RATE)


def contents(kind):
    """Return a file, the place of its size, and the size's format and surplus."""
    path_format = {"rf64": "RF64", "wav": "WAV"}.get(kind, kind.upper())
    file = io.BytesIO()
    soundfile.write(file, values(), RATE, "PCM_16", format=path_format)
    raw = bytearray(file.getvalue())
    begin = len(raw) - N_BYTES if kind != "caf" else raw.index(b"data") + 16
    at, form, surplus = {
        "wav": (begin - 4, "<I", 0),
        "rf64": (raw.find(b"ds64") + 16, "<Q", 0),
        "w64": (begin - 8, "<Q", 24),
        "aiff": (begin - 12, ">I", 8),
        "au": (8, ">I", 0),
        "caf": (begin - 12, ">Q", 4),
    }[kind]
    if kind == "rf64" and raw[:4] != b"RF64":  # short files become WAV
        raw = bytearray(
            b"RF64\xff\xff\xff\xffWAVEds64"
            + struct.pack("<IQQQI", 28, N_BYTES + 72, N_BYTES, RATE, 0)
            + raw[raw.index(b"fmt ") : raw.index(b"fmt ") + 24]
            + b"data\xff\xff\xff\xff"
            + raw[-N_BYTES:]
        )
        at, begin = 28, len(raw) - N_BYTES
    raw = raw[: begin + N_BYTES]
    return raw, begin, at, form, surplus


KINDS = ["wav", "rf64", "w64", "aiff", "au", "caf"]


def stated(kind, n_bytes):
    """Return a file with `n_bytes` of sound in its header."""
    raw, _, at, form, surplus = contents(kind)
    if n_bytes == "the file's":
        n_bytes = len(raw)
    if n_bytes == "unknown":
        n_bytes = (1 << 8 * struct.calcsize(form)) - 1 - surplus
    struct.pack_into(form, raw, at, max(0, n_bytes + surplus if n_bytes else 0))
    return raw


def read(path):
    source = make(path=str(path))
    samples = samples_of(read_all(source))[:, 0]
    return samples, source.failures


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "size", [0, "unknown", N_BYTES // 2, 2, N_BYTES, "the file's", N_BYTES + 8]
)
def test_all_sound_is_read_whatever_the_header_states(tmp_path, kind, size):
    path = tmp_path / f"x.{'wav' if kind == 'rf64' else kind}"
    path.write_bytes(stated(kind, size))
    samples, failures = read(path)
    assert failures == []
    np.testing.assert_allclose(samples, values()[:, 0], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_that_was_cut_is_reported(tmp_path, kind):
    path = tmp_path / f"x.{'wav' if kind == 'rf64' else kind}"
    raw = stated(kind, N_BYTES)
    path.write_bytes(raw[: -N_BYTES // 2])
    samples, failures = read(path)
    assert len(samples) == RATE // 2
    (failure,) = failures
    assert f"'{path}' is cut off after 0.500 s" in failure


@pytest.mark.parametrize("kind", ["wav", "rf64", "aiff"])
@pytest.mark.parametrize("size", [0, "unknown", N_BYTES // 2, N_BYTES])
def test_chunks_behind_the_sound_are_no_sound(tmp_path, kind, size):
    path = tmp_path / f"x.{'wav' if kind == 'rf64' else kind}"
    trailer = FORM_TRAILER if kind == "aiff" else RIFF_TRAILER
    path.write_bytes(stated(kind, size) + trailer)
    samples, failures = read(path)
    assert failures == []
    assert len(samples) == RATE


@pytest.mark.parametrize("tail", [bytes(5000), b"TAG" + bytes(125), b"\0"])
def test_padding_and_tags_behind_the_sound_are_no_sound(tmp_path, tail):
    path = tmp_path / "x.wav"
    path.write_bytes(stated("wav", N_BYTES) + tail)
    samples, failures = read(path)
    assert failures == []
    assert len(samples) == RATE


def test_a_size_that_wrapped_at_4_gib_is_that_of_the_file(tmp_path):
    path = tmp_path / "x.wav"
    n_bytes = 2**32 + N_BYTES  # the header says N_BYTES
    with path.open("wb") as file:
        file.write(stated("wav", N_BYTES)[:-N_BYTES])
        begin = file.tell()
        file.truncate(begin + n_bytes - N_BYTES)  # a hole, which takes no room
        file.seek(0, 2)
        file.write(stated("wav", N_BYTES)[-N_BYTES:])
    recording = Recording(header := inspect(path))
    assert header.n_samples == n_bytes // 2
    recording.open()
    recording.seek(n_bytes // 2 - RATE)
    np.testing.assert_allclose(recording.read(RATE), values(), atol=1e-4)
    recording.close()
    assert recording.problem is None


def test_a_header_without_sound_holds_no_samples(tmp_path):
    path = tmp_path / "x.wav"
    path.write_bytes(stated("wav", 0)[:-N_BYTES] + RIFF_TRAILER)
    with pytest.raises(AudioFileError, match="holds no samples"):
        make(path=str(path)).open()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, N_BYTES // 2, 2 * N_BYTES])
def test_a_folder_waits_for_a_file_that_may_still_grow(tmp_path, kind, size):
    name = f"x.{'wav' if kind == 'rf64' else kind}"
    (tmp_path / name).write_bytes(stated(kind, size))
    source = folder_source.make(tmp_path, settle_s=0, partial_s=1000, follow=True)
    source.open()
    assert source.read(0) is None
    source.close()
    items = folder_source.read_all(folder_source.make(tmp_path, partial_s=0))
    assert names(items) == [name]
    assert len(samples_of(items)) == RATE
    state = (tmp_path / STATE).read_text()
    assert statuses(state) == {name: "taken"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_takes_a_file_whose_header_counts_itself(tmp_path, kind):
    """The size in the header is that of the file, which is complete."""
    name = f"x.{'wav' if kind == 'rf64' else kind}"
    (tmp_path / name).write_bytes(stated(kind, "the file's"))
    source = folder_source.make(tmp_path, partial_s=1000)
    items = folder_source.read_all(source)
    assert names(items) == [name]
    assert len(samples_of(items)) == RATE
    assert source.failures == []


def flac_stating(total):
    """Return a FLAC file of a second with `total` samples in its header."""
    file = io.BytesIO()
    soundfile.write(file, values(), RATE, "PCM_16", format="FLAC")
    raw = bytearray(file.getvalue())
    raw[21] = raw[21] & 0xF0 | total >> 32
    raw[22:26] = struct.pack(">I", total & 0xFFFFFFFF)
    return raw


@pytest.mark.parametrize("total", [0, 1, RATE // 2, RATE])
@pytest.mark.parametrize("tail", [b"", bytes(5000), b"TAG" + bytes(125), b"\xff" * 9])
def test_a_flac_file_is_read_to_its_last_frame(tmp_path, total, tail):
    path = tmp_path / "x.flac"
    path.write_bytes(flac_stating(total) + tail)
    samples, failures = read(path)
    assert failures == []
    np.testing.assert_allclose(samples, values()[:, 0], atol=1e-4)


@pytest.mark.parametrize("total", [0, RATE, 5 * RATE])
def test_a_flac_file_that_was_cut_is_reported(tmp_path, total):
    path = tmp_path / "x.flac"
    raw = flac_stating(total)
    path.write_bytes(raw[: len(raw) * 2 // 3])
    samples, failures = read(path)
    assert 0 < len(samples) < RATE
    (failure,) = failures
    assert f"'{path}' is cut off after {len(samples) / RATE:.3f} s" in failure


def in_pages(raw):
    """Return a FLAC file inside Ogg pages; the decoder reads no checksums of them."""
    head, rest = raw[:42], raw[42:]
    first = b"\x7fFLAC\x01\x00\x00\x01" + bytes(head)
    pages, parts = [], [first]
    parts += [bytes(rest[i : i + 5000]) for i in range(0, len(rest), 5000)]
    for number, part in enumerate(parts):
        lengths = [255] * (len(part) // 255) + [len(part) % 255]
        flags = 2 if number == 0 else 4 if number == len(parts) - 1 else 0
        page = b"OggS\0" + struct.pack("<BqIII", flags, 0, 7, number, 0)
        pages.append(page + bytes([len(lengths)]) + bytes(lengths) + part)
    return b"".join(pages)


def test_flac_in_ogg_is_read(tmp_path):
    path = tmp_path / "x.oga"
    path.write_bytes(in_pages(flac_stating(0)))
    samples, failures = read(path)
    assert failures == []
    np.testing.assert_allclose(samples, values()[:, 0], atol=1e-4)


@pytest.mark.parametrize("kind", ["ogg", "mp3"])
def test_a_compressed_recording_that_was_cut_is_reported(tmp_path, kind, capfd):
    path = tmp_path / f"x.{kind}"
    sound = {"mp3": 0.3 * np.sin(np.arange(5 * RATE) / 5), "ogg": noise(5 * RATE)}
    soundfile.write(path, sound[kind], RATE)
    whole, failures = read(path)
    assert failures == []
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    samples, failures = read(path)
    assert 0 < len(samples) < len(whole)
    (failure,) = failures
    assert f"'{path}' is cut off after" in failure
    assert capfd.readouterr().err == ""  # nothing of a decoder


@pytest.mark.parametrize(
    ("name", "head", "kind"),
    [
        ("x.mp3", b"\0\0\0\x20ftypM4A ", "an MPEG-4 file"),
        ("x.wav", b"\0\0\0\x20ftypisom", "an MPEG-4 file"),
        ("x.mp3", b"\xff\xf1\x50\x80", "an AAC file"),
        ("x.ogg", b"\x1a\x45\xdf\xa3", "a Matroska or WebM file"),
        ("x.wav", b"wvpk\0\0\0\0", "a WavPack file"),
        ("x.wav", b"PK\x03\x04", "a ZIP archive"),
        ("x.wav", b"<!DOCTYPE html>", "a text file"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path, capfd, name, head, kind):
    path = tmp_path / name
    path.write_bytes(head + bytes(range(256)) * 20)
    with pytest.raises(AudioFileError, match=kind) as caught:
        make(path=str(path)).open()
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("rate", [1, 7, 99, 10_000_001])
def test_a_rate_out_of_bounds_is_refused(tmp_path, rate):
    path = tmp_path / "x.wav"
    soundfile.write(path, noise(100), rate)
    with pytest.raises(AudioFileError, match=f"sample rate of {rate} Hz"):
        make(path=str(path)).open()


# ---- chains of Ogg files -------------------------------------------------------------


def ogg(path, subtype, seconds, rate=16000):
    values = noise(int(seconds * rate))
    soundfile.write(path, values, rate, format="OGG", subtype=subtype)
    return path.read_bytes()


def read_ogg(path, block_length, begin=0):
    recording = Recording(inspect(path))
    recording.open()
    recording.seek(begin)
    n_read = 0
    while len(part := recording.read(block_length)):
        n_read += len(part)
    recording.close()
    return n_read, recording.problem


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("block_length", [777, 10**6])
def test_all_links_are_read(tmp_path, subtype, block_length):
    parts = [ogg(tmp_path / "x", subtype, s) for s in (0.5, 0.3, 0.7)]
    path = tmp_path / "chain.ogg"
    path.write_bytes(b"".join(parts) + parts[0])  # one comes twice
    assert inspect(path).n_samples == 2 * 16000
    assert read_ogg(path, block_length) == (2 * 16000, None)
    for begin in (0, 16000 // 2 - 1, 16000 // 2, 16000, 2 * 16000 - 1):
        assert read_ogg(path, block_length, begin) == (2 * 16000 - begin, None)


def test_a_link_of_another_rate_ends_the_recording_and_is_told(tmp_path):
    path = tmp_path / "chain.ogg"
    first = ogg(tmp_path / "x", "VORBIS", 0.5)
    other = ogg(tmp_path / "y", "VORBIS", 0.5, 2 * 16000)
    path.write_bytes(first + other + first)
    n_read, problem = read_ogg(path, 1000)
    assert n_read == 16000 // 2
    assert problem is not None
    assert "behind 0.500 s of sound" in problem


def test_the_last_link_may_be_cut(tmp_path):
    path = tmp_path / "chain.ogg"
    part = ogg(tmp_path / "x", "VORBIS", 2.0)
    path.write_bytes(part + part[: len(part) // 2])
    n_read, problem = read_ogg(path, 1000)
    assert 2 * 16000 <= n_read < 4 * 16000
    assert problem is not None


# ---- sizes that no file can have -----------------------------------------------------


@pytest.mark.parametrize("form", ["CAF", "W64"])
def test_a_chunk_of_2_to_the_64_bytes_is_behind_the_end(tmp_path, form):
    path = tmp_path / f"a.{form.lower()}"
    soundfile.write(path, values(), RATE, "PCM_16", format=form)
    raw = path.read_bytes()
    order, place = (">Q", 12) if form == "CAF" else ("<Q", 56)
    huge = struct.pack(order, 2**64 - 9)
    path.write_bytes(raw[:place] + huge + raw[place + 8 :])
    with pytest.raises(AudioFileError, match=r"not a recording|cannot be read"):
        inspect(path)


@pytest.mark.parametrize("length", [60, 100, 200])
def test_an_mp3_that_is_cut_in_its_first_frame(tmp_path, length):
    path = tmp_path / "a.mp3"
    soundfile.write(path, values(), RATE, format="MP3")
    raw = path.read_bytes()
    begin = max(raw.find(b"Xing"), raw.find(b"Info"))
    for data in (raw[:length], raw[: begin + 10], raw[:begin] + b"Xing" + b"\0\0\0\3"):
        path.write_bytes(data)
        with pytest.raises(AudioFileError):
            inspect(path)


def as_riff(*chunks, form=b"RIFF"):
    """Return a RIFF file of chunks, each a name, its content and its padding."""
    body = b"".join(
        name + struct.pack("<I", len(content)) + content + padding
        for name, content, padding in chunks
    )
    return form + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


@pytest.mark.parametrize("kind", ["unpadded", "two of sound", "BW64", "named .raw"])
def test_chunks_that_the_decoder_does_not_know_hide_no_sound(tmp_path, kind):
    raw, begin, *_ = contents("wav")
    head = (b"fmt ", bytes(raw[20:36]), b"")
    sound = bytes(raw[begin:])
    half = len(sound) // 4 * 2
    path = tmp_path / ("x.raw" if kind == "named .raw" else "x.wav")
    path.write_bytes(
        {
            "unpadded": as_riff((b"LIST", b"INFOx", b""), head, (b"data", sound, b"")),
            "two of sound": as_riff(
                head,
                (b"data", sound[:half], b""),
                (b"odd ", b"x", b"\0"),
                (b"data", sound[half:], b""),
            ),
            "BW64": as_riff(
                (b"ds64", struct.pack("<QQQI", 0, len(sound), RATE, 0), b""),
                head,
                (b"data", sound, b""),
                form=b"BW64",
            ),
            "named .raw": bytes(raw),
        }[kind]
    )
    samples, failures = read(path)
    assert failures == []
    np.testing.assert_allclose(samples, values()[:, 0], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("x.raw", bytes(range(1, 256)) * 99, "no header; samples without one"),
        ("x.wav", bytes(100_000), "begins with zeros alone"),
        ("x.wav", b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0" + bytes(99), "header is damaged"),
        ("x.flac", b"\x01\x02nothing" * 99, "no known audio format"),
        ("x.wav", b"version https://example.org/spec\n" * 9, "a text file"),
    ],
)
def test_why_a_file_cannot_be_read_is_said_in_our_words(
    tmp_path, capfd, name, content, reason
):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AudioFileError, match=reason):
        make(path=str(tmp_path / name)).open()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("damage", [b"\0", b"\xff\xfb", b"a line of text\n"])
def test_the_decoder_of_mp3_does_not_speak(tmp_path, capfd, damage):
    path = tmp_path / "x.mp3"
    soundfile.write(path, 0.3 * np.sin(np.arange(5 * RATE) / 5), RATE)
    raw = path.read_bytes()
    middle, count = len(raw) // 2, 3000
    patch = (damage * count)[:count]
    path.write_bytes(raw[:middle] + patch + raw[middle + count :] + patch)
    samples, _ = read(path)
    assert len(samples)
    assert capfd.readouterr().err == ""


def test_a_link_that_leads_nowhere_is_named(tmp_path):
    (tmp_path / "x.wav").symlink_to("gone.wav")
    with pytest.raises(AudioFileError, match=r"leads to no file: 'gone\.wav'"):
        make(path=str(tmp_path / "x.wav")).open()


# ---- files that were joined ----------------------------------------------------------

SUBTYPES = {
    "wav": "PCM_16",
    "rf64": "PCM_24",
    "w64": "PCM_16",
    "aiff": "PCM_16",
    "au": "PCM_16",
    "caf": "PCM_16",
    "flac": "PCM_16",
}


def sound_file(path, seconds, rate=RATE):
    suffix = path.suffix[1:]
    soundfile.write(path, noise(int(seconds * rate)), rate, SUBTYPES[suffix])
    return path.read_bytes()


@pytest.mark.parametrize("suffix", SUBTYPES)
def test_files_that_were_joined_are_heard_and_told(tmp_path, suffix):
    parts = [sound_file(tmp_path / f"x.{suffix}", s) for s in (0.501, 0.3, 0.7)]
    path = tmp_path / f"joined.{suffix}"
    path.write_bytes(b"".join(parts) + parts[0])
    items = read_all(source := make(path=str(path)))
    lengths = [int(s * RATE) for s in (0.501, 0.3, 0.7, 0.501)]
    wanted = np.concatenate([noise(n) for n in lengths])
    np.testing.assert_allclose(samples_of(items), wanted, atol=1e-4)
    assert source.notices == [
        f"'{path}' is 4 files, one behind the other: they are heard as one"
    ]
    assert source.failures == []


@pytest.mark.parametrize("pair", [("wav", "flac"), ("flac", "wav"), ("caf", "wav")])
def test_files_of_two_kinds_that_were_joined(tmp_path, pair):
    parts = [sound_file(tmp_path / f"x.{suffix}", 0.5) for suffix in pair]
    path = tmp_path / f"joined.{pair[0]}"
    path.write_bytes(b"".join(parts))
    assert inspect(path).n_samples == RATE


def test_a_joined_file_of_another_rate_is_told_as_not_heard(tmp_path):
    path = tmp_path / "joined.wav"
    first = sound_file(tmp_path / "x.wav", 0.5)
    path.write_bytes(first + sound_file(tmp_path / "x.wav", 0.5, 2 * RATE))
    items = read_all(source := make(path=str(path)))
    assert len(samples_of(items)) == RATE // 2
    assert source.failures == [
        f"'{path}' has another file behind 0.500 s of sound, of another rate or form, "
        "which is not heard: save it by itself"
    ]


def test_mp3_files_that_were_joined_are_heard(tmp_path):
    soundfile.write(tmp_path / "x.mp3", noise(RATE), RATE)
    once = tmp_path / "x.mp3"
    path = tmp_path / "joined.mp3"
    path.write_bytes(once.read_bytes() * 2)
    n_read = len(samples_of(read_all(make(path=str(path)))))
    assert n_read >= 2 * len(samples_of(read_all(make(path=str(once)))))


@pytest.mark.parametrize("suffix", ["wav", "w64", "aiff", "au", "caf"])
def test_bytes_behind_the_stated_sound_are_heard_and_told(tmp_path, suffix):
    raw = sound_file(tmp_path / f"x.{suffix}", 0.5)
    path = tmp_path / f"more.{suffix}"
    path.write_bytes(raw + np.random.default_rng(3).bytes(4000))
    items = read_all(source := make(path=str(path)))
    assert len(samples_of(items)) > RATE // 2
    (notice,) = source.notices
    assert "bytes behind the " in notice
    assert notice.endswith("header states: they are heard as sound, too")


def test_bytes_behind_a_whole_flac_raise_no_alarm(tmp_path):
    raw = sound_file(tmp_path / "x.flac", 0.5)
    path = tmp_path / "more.flac"
    path.write_bytes(raw + np.random.default_rng(3).bytes(4000))
    items = read_all(source := make(path=str(path)))
    assert len(samples_of(items)) == RATE // 2
    assert source.notices == source.failures == []

"""Parsers of names, times, tables and JSON for `fuzz.py`, with valid inputs."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from fuzz_parsers import Parser, folder, recording, requests, sounds

from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.support.names import beside
from neurovocal.engine.support.strict_json import JsonError, objects
from neurovocal.engine.support.text import plain_name, printable
from neurovocal.engine.wire.keys import allowed_keys
from neurovocal.models.data.datasets import read_dataset
from neurovocal.models.data.formats.segments import AnnotationChoice
from neurovocal.models.detection.recipe import load_recipe
from neurovocal.models.toolkit.recipe import load_config
from neurovocal.plugins.sources import recording as source_recording
from neurovocal.plugins.sources.audio_files.file import inspect, stream_names
from neurovocal.plugins.sources.folder.state import ProcessedFiles
from neurovocal.plugins.storage.folder import stream_file_name

NAMES = [
    b"20210513_190000.wav",
    b"SMM01_20210513_190000-20210513_191000_+0200.wav",
    b"station 3_2021-05-13T19-00-00.250Z.flac",
    b"5E90A4D4.WAV",
    "Zaunk\u00f6nig \u9dafの歌.wav".encode(),
    b"caf\xe9 \x1b[31m\n.wav",
    b"=cmd|'/c calc'!A0.wav",
    b"S4A00001_20210513_190000_000.wav",
]
GUANO = [
    b"GUANO|Version: 1.0\nTimestamp: 2021-05-13T19:00:00+02:00\nSamplerate: 384000\n",
    b"GUANO|Version: 1.0\nTimestamp: 2021-05-13 19:00:00.25\nTE: 10\nLoc: 52.5 13.4\n",
]
COMMENTS = [
    b"Recorded at 19:00:00 13/05/2021 (UTC+2) by AudioMoth 24E1440355 at gain 2",
    b"Recorded at 19:00:00.250 13/05/2021 (UTC-3:30) by AudioMoth 24E1440355",
]
HEAD = {"stream": "a", "order": 0, "run": "r", "sample_rate": 8000}
JUMP = {"at": 100, "start": 100, "stop": 300, "reason": "device lost"}
ENTRY = {"file": "a.wav", "size": 9, "mtime_ns": 7, "verdict": "taken", "print": "0f"}
BEGUN = {**ENTRY, "verdict": "begun", "run": "r", "runs": ["q", "r"]}
KEY = (
    b"#   ZeroMQ CURVE **Public** Certificate\n\nmetadata\ncurve\n"
    b'    public-key = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"\n'
)
SEQUENCES = {
    "simple-seq": b"onset_s,offset_s,label\n0.05,0.10,a\n0.15,0.20,b\n",
    "timit": b"400 800 a\n1200 1600 b\n",
    "generic-seq": b"label,onset_s,offset_s,onset_sample,offset_sample,notated_path,"
    b"annot_path,sequence,annotation\na,0.05,0.1,400,800,a.wav,a.csv,0,0\n",
}


def parsers() -> dict[str, Parser]:
    """Return the parsers by name."""
    recipes = Path(__file__).resolve().parents[2] / "configs"
    network = recipes / "train-detector.yaml"
    others = [path for path in recipes.glob("train*.yaml") if path != network]
    return {
        "file name": Parser(name, NAMES, 8),
        "GUANO chunk": Parser(metadata(b"guan"), GUANO, 3),
        "bext chunk": Parser(metadata(b"bext"), [bext()], 2),
        "comment": Parser(metadata(b"LIST"), [as_list(c) for c in COMMENTS], 2),
        "timeline": Parser(timeline, [lines(HEAD, JUMP), lines(HEAD)], 5),
        "state of a folder": Parser(state, [lines(ENTRY, BEGUN), lines(BEGUN)], 3),
        "JSON request": Parser(request, requests("set", "replay", "topics"), 4),
        "key": Parser(key, [KEY], 1),
        "recipe": Parser(recipe, [path.read_bytes() for path in others]),
        "detector recipe": Parser(detector_recipe, [network.read_bytes()]),
        **{
            f"{form} table": Parser(sequences(form), [SEQUENCES[form]])
            for form in SEQUENCES
        },
        "Raven table, chosen": Parser(chosen, RAVEN, 1),
        **{
            f"{form} file": Parser(recording(form.lower()), sounds(form), 1)
            for form in ("AIFF", "CAF", "AU", "W64", "RF64", "OGG", "MP3")
        },
        "Ogg chain": Parser(recording("ogg"), [b"".join(ogg() * 2)], 1),
    }


def name(data: bytes) -> object:
    """Name a recording, and find its time in its name."""
    text = os.fsdecode(data.replace(b"\0", b"").replace(b"/", b"")[:255])
    if not text.strip("."):
        return None
    plain_name(text).encode()
    assert printable(text).isprintable()
    path = folder() / "names" / text
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(sounds("WAV")[0])
    try:
        (stream,) = stream_names([path], "path")
        assert len(os.fsencode(stream_file_name(stream))) <= 160
        assert len(os.fsencode(beside(path, middle=".1.left").name)) <= 255
        return str(inspect(path).start)
    finally:
        path.unlink()


def metadata(chunk: bytes) -> Callable[[bytes], object]:
    """Return a reader of the time in a chunk of a WAV file."""

    def take(data: bytes) -> object:
        sound = sounds("WAV")[0]
        padded = data + b"\0" * (len(data) % 2)
        body = sound[8:] + chunk + struct.pack("<I", len(data)) + padded
        path = folder() / "timed.wav"
        path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
        return str(inspect(path).start)

    return take


def bext() -> bytes:
    """Return a bext chunk with a time."""
    texts = (b"a bird", b"recorder", b"ref")
    fixed = b"".join(
        t.ljust(n, b"\0") for t, n in zip(texts, (256, 32, 32), strict=True)
    )
    return fixed + b"2021-05-1319:00:00" + bytes(8 + 2 + 64 + 190)


def as_list(comment: bytes) -> bytes:
    """Return a LIST chunk with a comment."""
    padded = comment + b"\0" * (1 + (len(comment) + 1) % 2)
    return b"INFOICMT" + struct.pack("<I", len(padded)) + padded


def lines(*objects_: dict[str, object]) -> bytes:
    """Return JSON lines."""
    return b"".join(json.dumps(each).encode() + b"\n" for each in objects_)


def timeline(data: bytes) -> object:
    """Read a recording with its timeline."""
    target = folder() / "kept"
    target.mkdir(exist_ok=True)
    if not (target / "a.wav").exists():
        soundfile.write(target / "a.wav", np.zeros(4000), 8000, subtype="FLOAT")
    (target / "a.jsonl").write_bytes(data)
    options = source_recording.RecordedOptions(path=str(target))
    source = source_recording.plugin.build(options, BuildContext(ManualClock(), "run"))
    source.open()
    try:
        return [source.read(0.0) for _ in range(2)]
    finally:
        source.close()


def state(data: bytes) -> object:
    """Read the state of a folder source, and use it."""
    path = folder() / "state"
    path.write_bytes(data)
    files = ProcessedFiles(path)
    files.open()
    try:
        status = path.stat()
        found = files.started_by("a.wav", "0f"), files.is_new_file("a.wav", "0f")
        return *found, files.is_finished("a.wav", status)
    finally:
        files.close()


def request(data: bytes) -> object:
    """Read a request as sockets do."""
    reason = ""
    try:
        return objects.read(data)
    except JsonError as error:
        reason = str(error)
    assert reason.isprintable()
    return None


def key(data: bytes) -> object:
    """Read the key of a client; a file without a key allows nobody."""
    target = folder() / "keys" / "readers"
    target.mkdir(parents=True, exist_ok=True)
    for end in ("a", "b"):
        (target / f"{end}.key").write_bytes(data)
    return allowed_keys(target.parent, "read")


def detector_recipe(data: bytes) -> object:
    """Read a recipe of training a detector network."""
    path = folder() / "recipe.yaml"
    path.write_bytes(data)
    return load_recipe(path)


def recipe(data: bytes) -> object:
    """Read a recipe of training."""
    path = folder() / "recipe.yaml"
    path.write_bytes(data)
    return load_config(path)


RAVEN = [
    b"Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tcall type\tnote\n"
    b"1\tS 1\t1\t0.05\t0.10\ta\tx\n2\tS 1\t1\t0.15\t0.20\tb\t\n"
]


def chosen(data: bytes) -> object:
    """Read a Raven table with ``label_column`` given."""
    target = dataset("chosen")
    (target / "a.txt").write_bytes(data)
    return read_dataset(target, "raven", AnnotationChoice(label_column="call type"))


def sequences(form: str) -> Callable[[bytes], object]:
    """Return a reader of a dataset with a table beside its recording."""

    def take(data: bytes) -> object:
        target = dataset(form)
        end = "phn" if form == "timit" else "csv"
        (target / f"a.{end}").write_bytes(data)
        return read_dataset(target, form)

    return take


def dataset(name_: str) -> Path:
    """Return a folder with a recording."""
    target = folder() / f"dataset {name_}"
    if not target.exists():
        target.mkdir()
        (target / "a.wav").write_bytes(sounds("WAV")[0])
    return target


def ogg() -> list[bytes]:
    """Return two Ogg files."""
    return sounds("OGG")

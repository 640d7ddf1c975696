"""Parsers of external bytes for `fuzz.py`, with valid inputs."""

import io
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import soundfile

from neurovocal.engine.config.located_yaml import parse_located
from neurovocal.engine.config.schema import parse_config
from neurovocal.engine.contracts.bundle import find_bundle, load_bundle
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.errors import EndOfStream
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import (
    Anchor,
    Frames,
    Gap,
    Health,
    Label,
    Message,
    Onset,
    Stats,
    StreamInfo,
)
from neurovocal.engine.journal import read_events
from neurovocal.engine.runtime.control.command_bus import CommandBus
from neurovocal.engine.wire.codec import decode, encode
from neurovocal.models.data.datasets import read_dataset
from neurovocal.plugins.models.onnx.session import open_session
from neurovocal.plugins.sinks.journal import JournalOptions, JournalSink
from neurovocal.plugins.sources import file as source_file
from neurovocal.plugins.storage.npz import read_npz
from neurovocal.plugins.zeromq.replay_server import ReplayServer

ROOT = Path(__file__).resolve().parents[2]
INFO = StreamInfo("aviary", 32000)


@dataclass(frozen=True)
class Parser:
    """A parser with valid inputs; ``weight`` is its share of all inputs."""

    take: Callable[[bytes], object]
    good: list[bytes]
    weight: float = 1.0


@cache
def folder() -> Path:
    """Folder of the files to read; one per process."""
    return Path(tempfile.mkdtemp(prefix="fuzz-"))


def parsers() -> dict[str, Parser]:
    """Return all parsers by name."""
    configs = [p.read_bytes() for p in sorted((ROOT / "configs").glob("*.yaml"))]
    bundle = find_bundle("bengalese-finch")
    return {
        "wire message": Parser(wire, wire_messages(), 6),
        "command": Parser(command, requests("status", "set", "prime"), 2),
        "replay request": Parser(replay, requests("replay", "topics"), 3),
        "configuration": Parser(configuration, configs, 1),
        "bundle manifest": Parser(manifest, [(bundle / "manifest.yaml").read_bytes()]),
        "ONNX file": Parser(onnx, [(bundle / "classifier.onnx").read_bytes()], 1),
        "npz file": Parser(npz, npz_files(), 2),
        "WAV file": Parser(recording("wav"), sounds("WAV"), 2),
        "FLAC file": Parser(recording("flac"), sounds("FLAC"), 1),
        "annotations": Parser(annotations("annotations.csv", None), tables(), 1),
        "files.csv": Parser(annotations("files.csv", "audacity"), FILES_TABLES, 1),
        "Raven table": Parser(annotations("a.txt", "raven"), RAVEN_TABLES, 1),
        "label track": Parser(annotations("a.txt", "audacity"), LABEL_TRACKS, 1),
        "TextGrid": Parser(annotations("a.TextGrid", "textgrid"), TEXTGRIDS, 1),
        "not.mat file": Parser(annotations("a.wav.not.mat", "notmat"), not_mats(), 1),
        "journal": Parser(journal, journals(), 1),
    }


def wire(data: bytes) -> object:
    """Parse a message of parts with their lengths before them."""
    parts, at = [], 0
    for _ in range(3):
        length = int.from_bytes(data[at : at + 3])
        parts.append(data[at + 3 : at + 3 + length])
        at += 3 + length
    return decode(parts)


def wire_messages() -> list[bytes]:
    """Return messages of most kinds."""
    events = [
        Label(1, 5, 9, "b", 0.5, "final", "m"),
        Onset(1, 5, 3.0),
        Gap(1, 2, "overrun"),
        Anchor(5, 10**18),
        Health("zmq", "lossy", "slow"),
        Stats({"a": 1}),
        Frames(3, 128, 256, np.zeros((2, 5), np.float32)),
    ]
    found = []
    for event in events:
        parts = encode(Message(INFO, event, 3, 9, 10**18), "run", 0.5)
        found.append(b"".join(len(p).to_bytes(3) + p for p in parts))
    return found


def command(data: bytes) -> object:
    """Check a request as the control socket does."""
    try:
        request = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # refused by the socket itself
    reply = bus().submit(request)
    return msgspec.json.encode(reply)


@cache
def bus() -> CommandBus:
    """Return a command bus without lanes, which checks but never applies commands."""
    return CommandBus("run", [], lambda: None)


def replay(data: bytes) -> object:
    """Answer a request to the replay socket."""
    return server()._answer(data)


@cache
def server() -> ReplayServer:
    """Return a replay server with a journal."""
    path = folder() / "asked.sqlite"
    path.write_bytes(journals()[0])
    return ReplayServer("tcp://127.0.0.1:*", path)


def requests(*commands: str) -> list[bytes]:
    """Return well-formed requests."""
    arguments: dict[str, Any] = {
        "set": {"arguments": {"temperature": 0.5}, "lane": "a", "model": 0},
        "replay": {
            "kind": "label",
            "stream": "aviary",
            "after": {"run": "run", "seq": 0},
            "start": "run",
            "most": 5,
        },
        "topics": {"kinds": ["label", "gap"]},
    }
    return [
        msgspec.json.encode(
            {"v": 1, "id": 7, "command": name, **arguments.get(name, {})}
        )
        for name in commands
    ]


def configuration(data: bytes) -> object:
    """Parse a configuration's envelope."""
    text = data.decode("utf-8", "replace")
    return parse_config(parse_located(text, "fuzz.yaml"))


def manifest(data: bytes) -> object:
    """Parse a bundle's manifest beside the files of a real bundle."""
    target = folder() / "bundle"
    if not target.exists():
        shutil.copytree(find_bundle("bengalese-finch"), target)
    (target / "manifest.yaml").write_bytes(data)
    return load_bundle(target)


def onnx(data: bytes) -> object:
    """Open a graph as the engine does."""
    path = folder() / "graph.onnx"
    path.write_bytes(data)
    return open_session(path)


def npz(data: bytes) -> object:
    """Read the arrays of a bundle."""
    path = folder() / "arrays.npz"
    path.write_bytes(data)
    return read_npz(path, "residual file")


def npz_files() -> list[bytes]:
    """Return compressed and uncompressed files."""
    found = []
    for save in (np.savez, np.savez_compressed):
        stream = io.BytesIO()
        save(stream, chol=np.eye(9, dtype=np.float32), sigma=np.ones(9))
        found.append(stream.getvalue())
    return found


def recording(ending: str) -> Callable[[bytes], object]:
    """Read a recording to its end with the file source."""

    def take(data: bytes) -> None:
        path = folder() / f"sound.{ending}"
        path.write_bytes(data)
        options = source_file.FileOptions(path=str(path))
        source = source_file.plugin.build(options, BuildContext(SystemClock(), "run"))
        try:
            source.open()
            # A header may promise hours; what is there ends soon.
            for _ in range(200):
                source.read(0.0)
        except EndOfStream:
            pass
        finally:
            source.close()

    return take


def sounds(form: str) -> list[bytes]:
    """Return half a second in several encodings."""
    rng = np.random.default_rng(0)
    found = []
    pcm = (("PCM_16", 1), ("PCM_24", 2))
    packed = {"OGG": (("VORBIS", 1), ("OPUS", 2)), "MP3": (("MPEG_LAYER_III", 1),)}
    for subtype, channels in packed.get(form, pcm):
        stream = io.BytesIO()
        noise = rng.uniform(-0.5, 0.5, (4000, channels))
        soundfile.write(stream, noise, 8000, format=form, subtype=subtype)
        found.append(stream.getvalue())
    return found


LABEL_TRACKS = [
    b"0.05\t0.10\ta\n0.15\t0.20\tb\n",
    b"0.05\t0.10\ta\n\\\t500.0\t800.0\n0.15\t0.20\tb\n\\\t500.0\t800.0\n",
]
RAVEN_TABLES = [
    b"Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tBegin File\t"
    b"File Offset (s)\tAnnotation\n1\tS 1\t1\t0.05\t0.10\ta.wav\t0.05\ta\n"
    b"1\tW 1\t1\t0.05\t0.10\ta.wav\t0.05\ta\n2\tS 1\t1\t0.15\t0.20\ta.wav\t0.15\tb\n"
]
TEXTGRIDS = [
    b'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0 \nxmax = 0.5 \n'
    b"tiers? <exists> \nsize = 1 \nitem []: \n    item [1]:\n"
    b'        class = "IntervalTier" \n        name = "units" \n        xmin = 0 \n'
    b"        xmax = 0.5 \n        intervals: size = 2 \n        intervals [1]:\n"
    b'            xmin = 0 \n            xmax = 0.1 \n            text = "a" \n'
    b"        intervals [2]:\n            xmin = 0.1 \n            xmax = 0.2 \n"
    b'            text = "say ""b""" \n',
]
FILES_TABLES = [b'file,split,note\na.wav,train,"x, y"\n']


def not_mats() -> list[bytes]:
    """Return .not.mat files."""
    import scipy.io

    stream = io.BytesIO()
    times = {"onsets": [[50.0], [150.0]], "offsets": [[100.0], [200.0]]}
    scipy.io.savemat(stream, {**times, "labels": "ab"})
    return [stream.getvalue()]


def annotations(name: str, form: str | None) -> Callable[[bytes], object]:
    """Return a reader of a dataset's annotation file, beside its recording."""

    def take(data: bytes) -> object:
        target = folder() / f"dataset-{form}-{name}"
        if not target.exists():
            target.mkdir()
            (target / "a.wav").write_bytes(sounds("WAV")[0])
            if name == "files.csv":
                (target / "a.txt").write_bytes(LABEL_TRACKS[0])
        (target / name).write_bytes(data)
        return read_dataset(target, form)

    return take


def tables() -> list[bytes]:
    """Return annotation tables."""
    head = "file,onset_s,offset_s,label\n"
    rows = "a.wav,0.05,0.10,a\na.wav,0.15,0.20,b\na.wav,0.25,0.31,a\n"
    return [(head + rows).encode(), ("\ufeff" + head + rows).encode("utf-8")]


def journal(data: bytes) -> object:
    """Read a journal to its end."""
    path = folder() / "read.sqlite"
    for end in ("-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    path.write_bytes(data)
    return list(read_events(path))


@cache
def journals() -> list[bytes]:
    """Return the journal of a short run."""
    path = folder() / "good.sqlite"
    sink = JournalSink(
        JournalOptions(path=str(path)), SystemClock(), "run", "version: 1"
    )
    sink.open()
    for seq in range(20):
        event = Label(seq, seq, seq + 9, "b", 0.5, "final", "m")
        sink.write(Message(INFO, event, seq, seq + 20))
    sink.close()
    return [path.read_bytes()]

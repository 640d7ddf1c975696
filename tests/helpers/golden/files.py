"""Describes files that the program has written, as text."""

import csv
import hashlib
import io
import json
import re
import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from golden.masking import clock_form, compact
from golden.session import Session

# Kinds that follow the machine's clock: their keys and their number of types alone.
CLOCKED_KINDS = frozenset({"stats", "health", "control"})
# Kinds whose values are drawn at random by a network: another processor may draw
# other ones, so only exact recordings have their values.
DRAWN_KINDS = frozenset({"synthesis", "audio"})
BULK_KINDS = frozenset({"block", "frames", "posteriors", "surprise", *DRAWN_KINDS})
# Kinds that come from the detector and the source: their positions are the same on
# every machine.
_CERTAIN_KINDS = frozenset({"onset", "offset", "gap", "withheld", "anchor"})
_ENDS = 2


def describe(session: Session, path: Path, *, drawn: bool = False) -> str:
    """Describe a file by its content, in the way that fits its kind.

    `drawn` says that its values were drawn at random by a network.
    """
    if path.is_dir():
        return describe_folder(session, path, drawn=drawn)
    match path.suffix.lower():
        case ".sqlite":
            return describe_journal(session, path)
        case ".wav" | ".flac":
            return _sound(session, path, drawn=drawn)
        case ".npz":
            return _arrays(session, path, drawn=drawn)
        case ".parquet":
            return _parquet(session, path)
        case ".png" | ".onnx":
            return "binary file"
        case ".jsonl":
            return describe_lines(session, path.read_text(encoding="utf-8"))
    return _text(session, path.read_text(encoding="utf-8", errors="backslashreplace"))


def describe_folder(session: Session, folder: Path, *, drawn: bool = False) -> str:
    """List the files of a folder, each with its description."""
    parts = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = session.masker.mask(str(path.relative_to(folder)))
        parts.append(f"[{name}]\n{describe(session, path, drawn=drawn)}")
    if not session.exact and len(parts) > 2 * _ENDS:
        names = [part.splitlines()[0] for part in parts]
        parts = [*names, *parts[:_ENDS], parts[-1]]
    return "\n".join(parts) or "empty folder"


def array_summary(session: Session, values: Any, *, drawn: bool = False) -> str:
    """Shape, type and figures of an array; its checksum where exact."""
    array = np.asarray(values)
    head = f"{array.dtype.str}{list(array.shape)}"
    if session.exact:
        digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        head += f" sha256 {digest}"
    if drawn and not session.exact:
        return f"{head} drawn, finite: {bool(np.isfinite(array).all())}"
    if not array.size or array.dtype.kind not in "fiu":
        return head
    number = session.masker.number
    exact = array.astype(np.float64)
    figures = {
        "mean": exact.mean(),
        "deviation": exact.std(),
        "lowest": exact.min(),
        "highest": exact.max(),
    }
    return f"{head} " + " ".join(f"{k} {number(float(v))}" for k, v in figures.items())


def describe_journal(session: Session, path: Path) -> str:
    """Schema, runs and events of a journal."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        lines = [
            f"{name} {db.execute(f'PRAGMA {name}').fetchone()[0]}"
            for name in ("application_id", "user_version", "journal_mode")
        ]
        schema = db.execute(
            "SELECT type, name, sql FROM sqlite_master ORDER BY type, name"
        )
        lines += [f"{kind} {name}: {sql}" for kind, name, sql in schema]
        cursor = db.execute("SELECT * FROM runs ORDER BY rowid")
        names = [column[0] for column in cursor.description]
        for row in cursor:
            shown = dict(zip(names, row, strict=True))
            for name in ("started_utc_ns", "ended_utc_ns"):
                shown[name] = "TIME" if shown.get(name) else shown.get(name)
            shown["version"] = "VERSION" if shown.get("version") else None
            config = shown.pop("config", "")
            lines += [f"run {shown}", session.masker.mask(str(config))]
        rows = db.execute(
            "SELECT run, kind, stream, seq, sample, utc_ns, header, latency, payload "
            "FROM messages ORDER BY (SELECT rowid FROM runs WHERE runs.run = "
            "messages.run), stream, kind, seq"
        ).fetchall()
    return session.masker.mask("\n".join([*lines, *_journal_rows(session, rows)]))


def _journal_rows(session: Session, rows: Sequence[Sequence[Any]]) -> list[str]:
    groups: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    clocked: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for run, kind, stream, seq, sample, utc_ns, header, latency, payload in rows:
        key = (str(run), str(stream), str(kind))
        if kind in CLOCKED_KINDS:
            clocked[key].append(json.loads(header))
            continue
        line = f"{seq} {sample} {utc_ns} {header} {latency}"
        if payload:
            shape = json.loads(header)["shape"]
            values = np.frombuffer(payload, "<f4").reshape(shape)
            drawn = kind in DRAWN_KINDS
            line += f" {array_summary(session, values, drawn=drawn)}"
        groups[key].append(line)
    lines = []
    for (_, stream, kind), found in groups.items():
        lines += grouped(session, f"{kind} of {stream}", found, kind)
    for (_, stream, kind), headers in clocked.items():
        lines += clocked_lines(f"{kind} of {stream}", kind, headers)
    return lines


def grouped(session: Session, title: str, lines: list[str], kind: str) -> list[str]:
    """The messages of one topic: all where exact, else their number and the ends."""
    loosened = [session.masker.loose(session.masker.mask(line)) for line in lines]
    head = f"{title}: {len(lines)} messages"
    if session.exact:
        return [head, *loosened]
    if kind in _CERTAIN_KINDS:
        positions = "\n".join(line.split(',"score"')[0] for line in loosened)
        positions = "\n".join(
            line.split('"posterior')[0] for line in positions.split("\n")
        )
        head += f", positions {hashlib.sha256(positions.encode()).hexdigest()[:16]}"
    if len(loosened) > 2 * _ENDS:
        loosened = [*loosened[:_ENDS], "...", *loosened[-_ENDS:]]
    return [head, *loosened]


def clocked_lines(title: str, kind: str, headers: list[dict[str, Any]]) -> list[str]:
    """Messages that follow the machine's clock.

    Of statistics the keys; of health what was said, without positions and numbers.
    """
    if kind != "health":
        forms = {compact(clock_form(header)) for header in headers[-1:]}
        return [f"{title}:", *sorted(forms)]
    said = {
        f"{h.get('stage')} {h.get('state')}: {_without_times(str(h.get('detail')))}"
        for h in headers
    }
    return [f"{title}:", *sorted(said)]


def _without_times(text: str) -> str:
    return re.sub(r"\b\d+(?:\.\d+)? (ms|s)\b", r"* \1", text)


def describe_lines(session: Session, text: str) -> str:
    """JSON lines, sorted by topic and number, or by file, where they have any."""
    groups: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
    clocked: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    other: list[tuple[str, str]] = []
    for line in text.splitlines():
        fields = json.loads(line)
        if not isinstance(fields, dict) or "seq" not in fields or "kind" not in fields:
            name = str(fields.get("file", "")) if isinstance(fields, dict) else ""
            other.append((name, line))
            continue
        key = (str(fields.get("stream")), fields["kind"])
        if fields["kind"] in CLOCKED_KINDS:
            clocked[key].append(fields)
            continue
        if "values" in fields:
            drawn = fields["kind"] in DRAWN_KINDS
            values = np.asarray(fields.pop("values"), dtype=np.float32)
            line = f"{compact(fields)} {array_summary(session, values, drawn=drawn)}"
        groups[key].append((fields["seq"], line))
    # Recordings that are read at once end in any order; a file's own lines keep theirs.
    other.sort(key=lambda entry: entry[0])
    lines = session.shortened(
        [session.masker.loose(session.masker.mask(line)) for _, line in other]
    )
    for stream, kind in sorted(groups):
        found = [line for _, line in sorted(groups[stream, kind])]
        lines += grouped(session, f"{kind} of {stream}", found, kind)
    for stream, kind in sorted(clocked):
        lines += clocked_lines(f"{kind} of {stream}", kind, clocked[stream, kind])
    return "\n".join(lines)


def _text(session: Session, text: str) -> str:
    shown = session.masker.loose(session.masker.mask(text))
    return "\n".join(session.shortened(shown.split("\n")))


def _sound(session: Session, path: Path, *, drawn: bool) -> str:
    with soundfile.SoundFile(path) as file:
        head = (
            f"{file.format} {file.subtype} {file.samplerate} Hz, "
            f"{file.channels} channels, {file.frames} samples"
        )
        samples = file.read(dtype="float32", always_2d=True)
    text = f"{head}: {array_summary(session, samples, drawn=drawn)}"
    if session.exact:
        # Not the file's checksum: libsndfile writes the time into float WAV files.
        text += f", {path.stat().st_size} bytes"
    return text


def _arrays(session: Session, path: Path, *, drawn: bool) -> str:
    with np.load(path) as file:
        return "\n".join(
            f"{name}: {array_summary(session, file[name], drawn=drawn)}"
            for name in sorted(file.files)
        )


def _parquet(session: Session, path: Path) -> str:
    try:
        from pyarrow import parquet
    except ImportError:
        return "pyarrow is not installed"
    table = parquet.read_table(path)
    columns = [f"{field.name}: {field.type}" for field in table.schema]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.column_names)
    writer.writerows(
        [row[name] for name in table.column_names] for row in table.to_pylist()
    )
    return "\n".join([*columns, _text(session, out.getvalue())])

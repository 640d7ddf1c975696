"""Parquet files of a scan: rows of segments, one file per day and station of a task.

The same rows give the same bytes: the order of rows, of columns and of the metadata is
fixed, and all options of the writer are stated here.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from neurovocal.engine import NS

_COMPRESSION = "zstd"
_ROWS_PER_GROUP = 1 << 17
UNKNOWN = "unknown"  # day or station
_DAY_NS = 86_400 * NS
_TIMES = frozenset({"onset_utc", "offset_utc", "start_utc"})
_METADATA_KEY = b"neurovocal"


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """Segment ``[onset, offset)`` of a recording, in samples and in seconds.

    ``sample_rate`` is that of the samples, which is the bundle's if there is one.
    ``onset_utc`` and ``offset_utc`` are in ns, None if the recording's time is not
    known; ``label`` and ``posterior`` are None without a classifier. ``score`` is the
    detector's.
    """

    recording: str
    channel: int
    onset: int
    offset: int
    sample_rate: int
    onset_s: float
    offset_s: float
    onset_utc: int | None
    offset_utc: int | None
    label: str | None
    posterior: float | None
    score: float | None
    truncated: bool


@dataclass(frozen=True, slots=True)
class RecordingRow:
    """What became of a recording.

    ``state`` is ``done``, ``partial`` if what comes before a damaged place was used, or
    ``bad`` if nothing could be used; ``reason`` says why. ``note`` tells what is
    unusual, such as a time that was not believed. Both may be None.
    """

    recording: str
    size: int | None
    version: str
    station: str
    start_utc: int | None
    audio_s: float
    segments: int
    state: str
    reason: str | None
    note: str | None


Partition = tuple[str, str]  # day, station


def day_of(utc_ns: int | None) -> str:
    """Return the UTC day of a time, such as ``2021-05-13``."""
    if utc_ns is None:
        return UNKNOWN
    import numpy as np

    return str(np.datetime64(utc_ns // _DAY_NS, "D"))


def task_id(recordings: Sequence[tuple[str, str]]) -> str:
    """Return the name of the task that reads these recordings (names and versions)."""
    text = json.dumps(list(recordings), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def encode_rows(
    kind: type[SegmentRow] | type[RecordingRow],
    rows: Sequence[Any],
    provenance: Mapping[str, object],
) -> bytes:
    """Return a Parquet file of rows of one kind.

    Parameters
    ----------
    kind : type
        `SegmentRow` or `RecordingRow`; its fields are the columns.
    rows : sequence
        Rows, in the order in which they shall stand.
    provenance : mapping
        What made them; written into the file's metadata as JSON.
    """
    import pyarrow
    import pyarrow.parquet

    text = json.dumps(provenance, sort_keys=True, ensure_ascii=False)
    schema = _schema(kind).with_metadata({_METADATA_KEY: text.encode()})
    columns = [
        pyarrow.array([getattr(row, name) for row in rows], schema.field(name).type)
        for name in schema.names
    ]
    table = pyarrow.table(columns, schema=schema)
    target = io.BytesIO()
    pyarrow.parquet.write_table(
        table,
        target,
        version="2.6",
        compression=_COMPRESSION,
        row_group_size=_ROWS_PER_GROUP,
        use_dictionary=True,
        write_statistics=True,
    )
    return target.getvalue()


def read_provenance(path: str) -> dict[str, Any]:
    """Return the provenance in a Parquet file of a scan; empty if there is none."""
    import pyarrow.parquet

    metadata = pyarrow.parquet.read_schema(path).metadata or {}
    found: dict[str, Any] = json.loads(metadata.get(_METADATA_KEY, b"{}"))
    return found


def read_recordings(path: str) -> tuple[list[RecordingRow], dict[str, Any]]:
    """Return the recordings of a finished task, and the provenance of its file."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        table = file.read(use_threads=False)
    numbers = {name: table.column(name) for name in table.schema.names}
    for name in _TIMES & numbers.keys():
        numbers[name] = numbers[name].cast("int64")
    columns = [numbers[field.name].to_pylist() for field in fields(RecordingRow)]
    rows = [RecordingRow(*values) for values in zip(*columns, strict=True)]
    text = (table.schema.metadata or {}).get(_METADATA_KEY, b"{}")
    return rows, json.loads(text)


def _schema(kind: type[SegmentRow] | type[RecordingRow]) -> Any:
    import pyarrow

    types = {
        "int": pyarrow.int64(),
        "float": pyarrow.float64(),
        "bool": pyarrow.bool_(),
        "str": pyarrow.string(),
    }

    def type_of(name: str, hint: str) -> Any:
        if name in _TIMES:
            return pyarrow.timestamp("ns", "UTC")
        return types[hint.partition(" ")[0]]

    return pyarrow.schema(
        [(f.name, type_of(f.name, _hint(f.type))) for f in fields(kind)]
    )


def _hint(hint: Any) -> str:
    """Return the name of a field's type, such as ``int`` or ``int | None``."""
    return hint.__name__ if isinstance(hint, type) else str(hint)

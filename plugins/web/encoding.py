"""Messages of the page's WebSocket: events as JSON text, columns as binary messages.

A binary message holds consecutive columns of one kind and stream: a little-endian
uint32 with the length of the header, the header as JSON, zero bytes up to a multiple
of four from the start, the values in C order. Frames and synthesized frames are bytes
from 0 (``low`` of the header) to 255 (``high``), everything else is float32.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from neurovocal.engine import Float32, Frames, Surprise, Synthesis, Trace

ColumnEvent: TypeAlias = Frames | Synthesis | Surprise | Trace

COLUMN_KINDS = frozenset({"frames", "synthesis", "surprise", "trace"})
# Least time between two messages of a kind in seconds: with all four kinds a stream
# has 30 messages a second at most.
PERIOD_S = {"frames": 1 / 12, "synthesis": 1 / 8, "surprise": 1 / 5, "trace": 1 / 5}

# Power below this is shown as silence; also keeps the logarithm finite.
_LEAST_POWER = 1e-20
# Shown range of frames in dB below their loudest value.
_RANGE_DB = 90.0
# The largest value is forgotten with this time constant, so that a click does not
# darken the page for good.
_FORGET_S = 30.0
_MOST_BINS = 2**18
_MOST_JOINED = 1000  # columns
_MOST_PARTS = 2000  # events that a message gathers


class Station(Struct, kw_only=True, omit_defaults=False):
    """Engine on the page, as the browser gets it.

    Parameters
    ----------
    id : str
        Name in messages and requests, such as ``s0``.
    name : str
        Name for people.
    endpoint : str or None
        Where the engine publishes; None: the page belongs to the engine itself.
    connected : bool
        Whether messages come.
    detail : str
        Why not, in a sentence.
    sound, history, control : bool
        Whether its sound can be heard, events be read from a journal, commands be sent.
    """

    id: str
    name: str
    endpoint: str | None = None
    connected: bool = True
    detail: str = ""
    sound: bool = False
    history: bool = False
    control: bool = False


def message_text(type_: str, **fields: Any) -> str:
    """Return a text message of a type, as JSON."""
    return msgspec.json.encode({"type": type_, **fields}).decode()


def event_prefix(station: str) -> str:
    """Return what stands before the header in the event messages of a station."""
    name = msgspec.json.encode(station).decode()
    return f'{{"type":"event","station":{name},"header":'


class FrameScale(NamedTuple):
    """Meaning of frame values: what `stats` say about a stream's frames.

    Parameters
    ----------
    scale : str
        ``log``: decimal logarithm of power; ``linear``: power; else of no unit.
    low, high : float or None
        Range to which the values are clipped; None: not known.
    """

    scale: str = ""
    low: float | None = None
    high: float | None = None

    @classmethod
    def of_stats(cls, values: Mapping[str, Any]) -> "FrameScale":
        """Return the scale that the values of a `stats` message state.

        A message without it, as of an older engine, or with a malformed one gives a
        scale of which nothing is known.
        """
        frames = values.get("frames")
        if not isinstance(frames, Mapping):
            return cls()
        scale, limits = frames.get("scale"), frames.get("range")
        name = scale if isinstance(scale, str) else ""
        if isinstance(limits, list | tuple) and len(limits) == 2:
            low, high = limits
            if all(isinstance(one, int | float) for one in limits) and low < high:
                return cls(name, float(low), float(high))
        return cls(name)

    @property
    def unit(self) -> str:
        """Unit of the values that `to_shown` returns."""
        return "dB" if self.low is None and self.scale in ("log", "linear") else ""

    def to_shown(self, values: Float32) -> Float32:
        """Return values in the unit that the page shows."""
        if self.unit != "dB":
            return values
        if self.scale == "log":
            return values * np.float32(10)
        power = np.maximum(values, np.float32(_LEAST_POWER))
        return np.float32(10) * np.log10(power)


@dataclass(slots=True)
class FrameFormat:
    """Shape of a stream's frames, and the range of values that their bytes span.

    A clipped scale has a fixed range. Otherwise it follows the values: at once to a
    larger one, slowly to a smaller one; in dB it has a fixed size.

    Attributes
    ----------
    scale : FrameScale
        Meaning of the values.
    hop_length, frame_length : int
        Of the last frames; 0 before the first.
    low, high : float
        Smallest and largest value, in the unit that is shown.
    """

    scale: FrameScale = field(default_factory=FrameScale)
    hop_length: int = 0
    frame_length: int = 0
    low: float = math.inf
    high: float = -math.inf

    def set_scale(self, scale: FrameScale) -> None:
        """Take another meaning of the values; a range in the old unit is forgotten."""
        if scale != self.scale:
            self.scale, self.low, self.high = scale, math.inf, -math.inf

    def update(self, shown: Float32, seconds: float) -> tuple[float, float]:
        """Return the range after `shown`, values of so many seconds of audio."""
        if self.scale.low is not None and self.scale.high is not None:
            return self.scale.low, self.scale.high
        finite = shown[np.isfinite(shown)]
        if finite.size:
            low, high = float(finite.min()), float(finite.max())
            kept = math.exp(-seconds / _FORGET_S)
            self.high = high if high >= self.high else high + kept * (self.high - high)
            self.low = low if low <= self.low else low + kept * (self.low - low)
        if self.high < self.low:
            return 0.0, 1.0
        if self.scale.unit == "dB":
            return self.high - _RANGE_DB, self.high
        return self.low, max(self.high, self.low + 1e-6)


class TraceReducer:
    """Joins the rows of a detector's trace to about one per frame.

    A detector decides every half millisecond or so: more rows than a page can show.
    Of the rows that are joined it keeps the largest score and the last thresholds and
    noise floor.
    """

    def __init__(self) -> None:
        self._rows: Float32 = np.empty((0, 4), np.float32)
        self._first = 0

    def reduce(self, trace: Trace, hop_length: int) -> Trace | None:
        """Return the complete rows about every `hop_length` samples, None if none are.

        Rows of an incomplete group wait for the next trace.
        """
        factor = max(1, hop_length // trace.hop_length)
        if trace.first != self._first + len(self._rows):
            self._rows, self._first = np.empty((0, 4), np.float32), trace.first
        rows = np.concatenate([self._rows, trace.values])
        skipped = min(-self._first % factor, len(rows))
        rows, first = rows[skipped:], self._first + skipped
        n_groups = len(rows) // factor
        used = n_groups * factor
        self._rows, self._first = rows[used:], first + used
        if not n_groups:
            return None
        groups = rows[:used].reshape(n_groups, factor, 4)
        values = groups[:, -1].copy()
        values[:, 0] = np.fmax.reduce(groups[:, :, 0], axis=1)
        joined_hop = trace.hop_length * factor
        length = trace.frame_length - trace.hop_length + joined_hop
        return Trace(first // factor, joined_hop, length, values, trace.unit)


def quantized(shown: Float32, low: float, high: float) -> NDArray[np.uint8]:
    """Return uint8 of the same shape: 0 for `low` and below, 255 for `high` and above.

    NaN becomes 0.
    """
    scaled = (shown - np.float32(low)) * np.float32(255.0 / (high - low))
    np.nan_to_num(scaled, copy=False, nan=0.0, posinf=255.0, neginf=0.0)
    np.clip(scaled, 0.0, 255.0, out=scaled)
    levels: NDArray[np.uint8] = np.rint(scaled).astype(np.uint8)
    return levels


def binary_message(header: dict[str, Any], values: NDArray[Any]) -> bytes:
    """Return a binary message of a header and its values (see the module)."""
    text = msgspec.json.encode(header)
    padding = -(4 + len(text)) % 4
    size = len(text).to_bytes(4, "little")
    return b"".join((size, text, bytes(padding), values.tobytes()))


class ColumnBatch(NamedTuple):
    """Binary message, and the number of its columns."""

    data: bytes
    n_columns: int


def joined(batches: Iterable[ColumnBatch]) -> list[tuple[int, ColumnBatch]]:
    """Join messages whose columns continue each other, about a thousand at a time.

    Returns
    -------
    list of (int, ColumnBatch)
        Index of the first part of each message, in rising order, and the message.
    """
    groups: list[list[_Part]] = []
    newest: dict[tuple[str, str, str], list[_Part]] = {}
    for index, batch in enumerate(batches):
        size = int.from_bytes(batch.data[:4], "little")
        header = msgspec.json.decode(batch.data[4 : 4 + size])
        part = _Part(index, header, batch)
        key = (header["station"], header["kind"], header["stream"])
        group = newest.get(key, [])
        n_columns = sum(each.batch.n_columns for each in group)
        if group and n_columns < _MOST_JOINED and _continues(part, group[-1]):
            group.append(part)
        else:
            newest[key] = [part]
            groups.append(newest[key])
    return [(group[0].place, _joined(group)) for group in groups]


class _Part(NamedTuple):
    place: int
    header: dict[str, Any]
    batch: ColumnBatch


def _continues(part: _Part, before: _Part) -> bool:
    """Return whether a message differs in its columns alone, and they follow."""
    wanted = before.header | {
        "first": before.header["first"] + before.batch.n_columns,
        "shape": [part.batch.n_columns, *before.header["shape"][1:]],
    }
    return part.header == wanted


def _joined(group: list[_Part]) -> ColumnBatch:
    if len(group) == 1:
        return group[0].batch
    header = group[0].header
    values = []
    for part in group:
        shape = part.header["shape"]
        n_bytes = np.dtype(header["dtype"]).itemsize * math.prod(shape)
        values.append(np.frombuffer(part.batch.data[-n_bytes:], np.uint8))
    n_columns = sum(part.batch.n_columns for part in group)
    shape = [n_columns, *header["shape"][1:]]
    data = binary_message(header | {"shape": shape}, np.concatenate(values))
    return ColumnBatch(data, n_columns)


class ColumnGatherer:
    """Gathers the columns of one kind and stream to few messages.

    Parameters
    ----------
    station, kind, stream : str
        As in the header of its messages.
    frames : FrameFormat
        Format of the stream's frames; frames and synthesis share one.
    due_s : float
        When the first message may be sent, in seconds of the clock.
    """

    def __init__(
        self,
        station: str,
        kind: str,
        stream: str,
        frames: FrameFormat,
        due_s: float = 0.0,
    ) -> None:
        self.kind, self.stream = kind, stream
        self._station = station
        self._frames = frames
        self._parts: list[Float32] = []
        self._head: dict[str, Any] = {}
        self._next = 0  # column that continues the gathered ones
        self._due_s = due_s

    def begin_at(self, due_s: float) -> None:
        """Let the gathered columns be sent from `due_s` on, if not before."""
        self._due_s = min(self._due_s, due_s)

    def add(
        self, event: ColumnEvent, run: str, sample_rate: int, now_s: float
    ) -> list[ColumnBatch]:
        """Add the columns of an event; return the messages that are complete.

        Columns that do not continue the gathered ones begin another message.
        """
        values = event.values
        if not len(values) or (values.ndim == 2 and values.shape[1] > _MOST_BINS):
            return []
        length = getattr(event, "frame_length", self._frames.frame_length)
        if isinstance(event, Frames):
            self._frames.hop_length = event.hop_length
            self._frames.frame_length = event.frame_length
        head = {
            "run": run,
            "hop_length": event.hop_length,
            "frame_length": length or event.hop_length,
            "sample_rate": sample_rate,
            "unit": getattr(event, "unit", ""),
            "bins": values.shape[1:],
        }
        done = []
        if self._parts and (head != self._head or event.first != self._next):
            done += self.flush(now_s)
        if not self._parts:
            self._head, self._next = head, event.first
        self._parts.append(values)
        self._next += len(values)
        if len(self._parts) >= _MOST_PARTS:
            return done + self.flush(now_s)
        return done + self.flush_due(now_s)

    def flush_due(self, now_s: float) -> list[ColumnBatch]:
        """Return the gathered columns if their time has come, as a message."""
        return self.flush(now_s) if now_s >= self._due_s else []

    def flush(self, now_s: float) -> list[ColumnBatch]:
        """Return the gathered columns as a message, if there are any."""
        if not self._parts:
            return []
        self._due_s = now_s + PERIOD_S[self.kind]
        parts, self._parts = self._parts, []
        values = parts[0] if len(parts) == 1 else np.concatenate(parts)
        header = {
            "station": self._station,
            "kind": self.kind,
            "stream": self.stream,
            **{name: self._head[name] for name in _GATHERED},
            "first": self._next - len(values),
            "shape": list(values.shape),
        }
        if self.kind in ("frames", "synthesis"):
            seconds = len(values) * header["hop_length"] / header["sample_rate"]
            with np.errstate(all="ignore"):
                shown = self._frames.scale.to_shown(values)
            low, high = self._frames.update(shown, seconds)
            unit = self._frames.scale.unit
            header |= {"dtype": "u1", "low": low, "high": high, "unit": unit}
            data = binary_message(header, quantized(shown, low, high))
        else:
            header["dtype"] = "<f4"
            data = binary_message(header, np.ascontiguousarray(values, "<f4"))
        return [ColumnBatch(data, len(values))]


_GATHERED = ("run", "hop_length", "frame_length", "sample_rate", "unit")

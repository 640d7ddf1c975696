"""Draw what a detector heard, found and missed, and labels, as one picture."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import Field

from neurovocal.engine import (
    Block,
    BuildContext,
    ConfigError,
    Float32,
    Gap,
    Label,
    Message,
    NearMiss,
    Offset,
    Onset,
    Options,
    Plugin,
    StageError,
    Trace,
    Withheld,
)
from neurovocal.engine.contracts.options import DAY_S, Order
from neurovocal.engine.support.names import at_home
from neurovocal.engine.support.outputs import write_whole
from neurovocal.plugins.pictures import missing_matplotlib
from neurovocal.plugins.storage.existing import FileKind
from neurovocal.plugins.storage.folder import set_aside
from neurovocal.plugins.storage.text_file import (
    STDOUT,
    Existing,
    existing_policy,
    file_access,
    file_claim,
    output_problems,
)

MOST_S = 60.0  # on one picture
_DEFAULT_S = 10.0
TITLE = "neurovocal: what a detector heard"  # stands in the file
_HEAD_BYTES = 1024

# A picture that it may replace: one of its own.
PICTURE = FileKind(
    "a picture of this kind",
    lambda head: head.startswith(b"\x89PNG") and TITLE.encode() in head[:_HEAD_BYTES],
)


class ExplainOptions(Options):
    """Options of the explain sink."""

    orders = (Order("from_s", "to_s", "nothing would be drawn", strict=True),)

    path: str
    """PNG file to write. A live run renames an existing picture of this kind to
    `STEM.1.left.png`; offline runs replace it."""
    from_s: float = Field(default=0.0, ge=0, le=DAY_S * 366)
    """Time in the first stream at which the picture begins."""
    to_s: float | None = Field(default=None, gt=0, le=DAY_S * 366)
    """Time at which it ends, at most 60 s later; by default 10 s later."""

    @property
    def end_s(self) -> float:
        """Time at which the picture ends."""
        return self.from_s + _DEFAULT_S if self.to_s is None else self.to_s


@dataclass(frozen=True, slots=True)
class Segment:
    """Detected segment, in seconds, with the score of its onset."""

    onset_s: float
    offset_s: float
    score: float
    truncated: bool


@dataclass(frozen=True, slots=True)
class LabelledSpan:
    """Final label of a segment, in seconds, with its posterior."""

    onset_s: float
    offset_s: float
    unit: str
    posterior: float


@dataclass(slots=True)
class Heard:
    """What a stretch of a stream held, all times in seconds from the stream's start.

    Attributes
    ----------
    stream : str
        Name of the stream.
    start_s, stop_s : float
        The stretch.
    sample_rate : int
        Of the samples, in Hz.
    samples : float32[n_samples]
        From `start_s` on; zeros where samples are lost or withheld.
    trace_s : float64[n_hops]
        Middle of each row of `trace`.
    trace : float32[n_hops, 4]
        As in `Trace`.
    unit : str
        Unit of scores; empty: the detector shows none.
    segments, near_misses, labels : list
        Those that lie in the stretch, wholly or in part.
    gaps : list of (float, float, str)
        Begin, end and reason of what is missing.
    """

    stream: str
    start_s: float
    stop_s: float
    sample_rate: int
    samples: Float32
    trace_s: np.ndarray[tuple[int], np.dtype[np.float64]]
    trace: Float32
    unit: str
    segments: list[Segment] = field(default_factory=list)
    near_misses: list[tuple[float, float, NearMiss]] = field(default_factory=list)
    gaps: list[tuple[float, float, str]] = field(default_factory=list)
    labels: list[LabelledSpan] = field(default_factory=list)


class ExplainSink:
    """Collects a stretch of the first stream and draws it when the stream has ended.

    Parameters
    ----------
    options : ExplainOptions
        Checked options.
    existing : {'replace', 'append', 'set aside'}
        What happens to an existing picture.
    """

    wants = frozenset(
        {"block", "gap", "withheld", "trace", "onset", "offset", "near_miss", "label"}
    )

    def __init__(self, options: ExplainOptions, existing: Existing = "replace") -> None:
        self._options = options
        self._existing = existing
        self._stream: str | None = None
        self._is_done = False
        self._blocks: list[tuple[int, Float32]] = []  # first sample, samples
        self._sample_rate = 0  # of the blocks
        self._traces: list[tuple[Trace, int]] = []  # with the rate of its stream
        self._onset: tuple[float, float] | None = None  # of the open segment; its score
        self._segments: list[Segment] = []
        self._labels: list[LabelledSpan] = []
        self._near_misses: list[tuple[float, float, NearMiss]] = []
        self._gaps: list[tuple[float, float, str]] = []
        self._heard_s = 0.0
        self._drawn: tuple[float, float] | None = None

    def open(self) -> None:
        """Raise ConfigError if the picture cannot be drawn or may not be written."""
        problems = list(_problems(self._options))
        if problems:
            raise ConfigError(problems)

    def write(self, message: Message) -> None:
        """Keep what belongs to the picture."""
        info, event = message.info, message.event
        if self._stream is None:
            self._stream = info.stream
        if self._is_done or info.stream != self._stream:
            return
        rate = info.sample_rate
        self._heard_s = max(self._heard_s, message.at / rate)
        match event:
            case Block():
                self._add_block(event, rate)
            case Trace():
                self._add_trace(event, rate)
            case Onset():
                self._onset = event.sample / rate, event.score
            case Offset() if self._onset is not None:
                segment = Segment(
                    self._onset[0], event.sample / rate, self._onset[1], event.truncated
                )
                if self._shows(segment.onset_s, segment.offset_s):
                    self._segments.append(segment)
                self._onset = None
            case Label(offset=int(offset), status="final"):
                labelled = LabelledSpan(
                    event.onset / rate, offset / rate, event.unit, event.posterior
                )
                if self._shows(labelled.onset_s, labelled.offset_s):
                    self._labels.append(labelled)
            case NearMiss():
                span = event.onset / rate, event.offset / rate
                if self._shows(*span):
                    self._near_misses.append((*span, event))
            case Gap() | Withheld() if event.stop > event.start:
                span = event.start / rate, event.stop / rate
                if self._shows(*span):
                    self._gaps.append((*span, event.reason))

    def flush(self, timeout: float) -> None:
        """Do nothing: the picture is drawn when the stream has ended."""

    def end_stream(self, stream: str) -> None:
        """Draw the picture if this is its stream; StageError if that fails."""
        if stream == self._stream and not self._is_done:
            self._draw()

    def close(self) -> None:
        """Draw the picture of a stream whose end was not told."""
        if self._stream is not None and not self._is_done:
            self._draw()

    def stats(self) -> dict[str, object]:
        """Return what was heard, and which part of it was drawn."""
        return {
            "heard_s": round(self._heard_s, 6),
            "drawn_s": None if self._drawn is None else list(self._drawn),
        }

    def _shows(self, start_s: float, stop_s: float) -> bool:
        return start_s < self._options.end_s and stop_s > self._options.from_s

    def _add_block(self, block: Block, rate: int) -> None:
        self._sample_rate = rate
        first = max(block.start, round(self._options.from_s * rate))
        last = min(block.stop, round(self._options.end_s * rate))
        if first < last:
            part = block.samples[first - block.start : last - block.start, 0]
            self._blocks.append((first, part.copy()))

    def _add_trace(self, trace: Trace, rate: int) -> None:
        stop = trace.first + len(trace.values)
        hop_s = trace.hop_length / rate
        if self._shows(trace.first * hop_s, stop * hop_s + trace.frame_length / rate):
            self._traces.append((trace, rate))

    def _draw(self) -> None:
        self._is_done = True
        heard = self._heard()
        if heard is None:
            return
        from neurovocal.plugins.sinks.explain.figure import picture_of

        path = at_home(self._options.path)
        if (problem := PICTURE.problem(path)) is not None:
            raise StageError(problem)
        if self._existing == "set aside" and path.exists():
            set_aside(path)
        content = picture_of(heard, TITLE)
        try:
            write_whole(path, content)
        except OSError as error:
            raise StageError(
                f"'{path}' cannot be written: {error.strerror or error}"
            ) from error
        self._drawn = round(heard.start_s, 6), round(heard.stop_s, 6)
        self._blocks, self._traces = [], []

    def _heard(self) -> Heard | None:
        """Return what is to be drawn; None if the stream ended before it began."""
        rate, start_s = self._sample_rate, self._options.from_s
        stop_s = min(self._options.end_s, self._heard_s)
        if not self._blocks or stop_s <= start_s:
            return None
        start = round(start_s * rate)
        samples = np.zeros(max(1, round(stop_s * rate) - start), np.float32)
        for first, part in self._blocks:
            room = samples[first - start :][: len(part)]
            room[:] = np.nan_to_num(part[: len(room)], posinf=0.0, neginf=0.0)
        rows = [trace.values for trace, _ in self._traces]
        middles = [_middles_s(trace, rate) for trace, rate in self._traces]
        trace = np.concatenate([np.empty((0, 4), np.float32), *rows])
        trace_s = np.concatenate([np.empty(0), *middles])
        inside = (trace_s >= start_s) & (trace_s <= stop_s)
        return Heard(
            self._stream or "",
            start_s,
            stop_s,
            rate,
            samples,
            trace_s[inside],
            trace[inside],
            self._traces[0][0].unit if self._traces else "",
            self._segments,
            self._near_misses,
            self._gaps,
            self._labels,
        )


def _middles_s(trace: Trace, rate: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    hops = trace.first + np.arange(len(trace.values))
    return (hops * trace.hop_length + trace.frame_length / 2) / rate


def _problems(options: ExplainOptions) -> Iterator[str]:
    if options.path == STDOUT:
        yield "a picture is a file: '-' is none"
        return
    if Path(options.path).suffix.lower() != ".png":
        yield f"'{options.path}': the picture is a PNG: end its name in .png"
    if options.end_s - options.from_s > MOST_S:
        yield (
            f"{options.from_s:g} to {options.end_s:g} s are too much for one picture, "
            f"which holds {MOST_S:g} s: choose a shorter part"
        )
    if (problem := missing_matplotlib("the picture of a detector")) is not None:
        yield problem
    yield from output_problems(options.path, PICTURE)


def _build(options: ExplainOptions, context: BuildContext) -> ExplainSink:
    return ExplainSink(options, existing_policy(context))


plugin = Plugin(
    kind="sink",
    options=ExplainOptions,
    build=_build,
    summary="draws what a detector heard, found and missed, as a picture",
    resources=lambda options: file_claim(options.path),
    check=lambda options, context: _problems(options),
    writes=lambda options, context: file_access(options.path),
)

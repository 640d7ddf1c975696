"""Audio and segments of one stream, and the sidecars of its clips."""

import io
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from neurovocal.engine import (
    NS,
    Block,
    Event,
    Float32,
    Gap,
    Label,
    Message,
    Offset,
    Onset,
    Surprise,
    Withheld,
)
from neurovocal.engine.audio.resampler import scaled
from neurovocal.engine.support.text import utc_text
from neurovocal.plugins.sinks.clips.ring import ClipRing, MissingSamples
from neurovocal.plugins.sinks.clips.selection import (
    ClipSegment,
    ClipSpan,
    SegmentGrouper,
    SurpriseHistory,
)
from neurovocal.plugins.storage.folder import stream_file_name

_MOST_JOINS = 1024


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths of the sink's options in seconds; ``bout_gap_s`` None: no bouts."""

    ring_s: float
    longest_s: float
    pre_roll_s: float
    post_roll_s: float
    label_wait_s: float
    bout_gap_s: float | None


@dataclass(frozen=True, slots=True)
class Extent:
    """Samples of the source that a clip covers; ``cut``: the segment is longer."""

    start: int
    stop: int
    cut: bool


class ClipStream:
    """Audio at the rate of the source, and segments at the rate of the lane.

    Each rate is known with the first message of its kind, in any order: behind a
    privacy gate labels come before their audio.

    Parameters
    ----------
    name : str
        Name of the stream.
    lengths : Lengths
        Lengths of ring, rolls and bouts.

    Attributes
    ----------
    rate, lane_rate : int
        Sample rates of source and lane in Hz; 0 until they are known.
    """

    def __init__(self, name: str, lengths: Lengths) -> None:
        self.name = name
        self.rate = self.lane_rate = 0
        self._lengths = lengths
        self._ring: ClipRing | None = None
        self._grouper: SegmentGrouper | None = None
        self._surprise: SurpriseHistory | None = None
        self._gaps: list[Gap] = []  # until the rate of the source is known
        # Samples of the lane at which another recording begins: no clip crosses them.
        self._joins: deque[int] = deque(maxlen=_MOST_JOINS)

    def add_audio(self, item: Block | Withheld, rate: int) -> None:
        """Append a block, or the interval of audio that privacy withholds."""
        ring = self._open_ring(rate)
        if isinstance(item, Block):
            ring.write(item)
        else:
            ring.skip(item.start, item.stop, item.reason)

    def add_event(self, event: Event, message: Message) -> None:
        """Add an event of the lane."""
        grouper, surprise = self._lane_parts(message.info.sample_rate)
        match event:
            case Gap():
                if event.is_join:
                    self._joins.append(event.start)
                self._gaps.append(event)
                self._declare_gaps()
            case Onset():
                grouper.add_onset(event.sample)
            case Offset():
                segment = ClipSegment(event, message.utc_ns)
                segment.surprise = surprise.mean_and_maximum(event.onset, event.sample)
                grouper.add_segment(segment)
            case Label():
                grouper.add_label(event, message.at)
            case Surprise():
                surprise.add(event)

    def pop_complete(self, position: int) -> Iterator[ClipSpan]:
        """Remove and yield the spans that are complete at a sample of the source."""
        if self._grouper is not None and self.rate:
            yield from self._grouper.pop_complete(
                scaled(position, self.rate, self.lane_rate)
            )

    def pop_all(self) -> Iterator[ClipSpan]:
        """Remove and yield all other spans, at the end of the stream."""
        if self._grouper is not None:
            yield from self._grouper.pop_all()

    def extent(self, span: ClipSpan) -> Extent:
        """Return the samples of the source that the clip of a span covers."""
        lengths, rate = self._lengths, self.rate
        newest = self._ring.stop if self._ring else 0
        onset = scaled(span.onset, self.lane_rate, rate)
        offset = scaled(span.offset, self.lane_rate, rate)
        longest = round(lengths.longest_s * rate)
        cut = offset - onset > longest
        if cut:
            onset = offset - longest
        start = max(0, onset - round(lengths.pre_roll_s * rate))
        stop = min(offset + round(lengths.post_roll_s * rate), newest)
        for join in self._joins:
            at = scaled(join, self.lane_rate, rate)
            if join <= span.onset:
                start = max(start, at)
            elif join >= span.offset:
                stop = min(stop, at)
        return Extent(start, max(stop, start), cut)

    def read(self, extent: Extent) -> tuple[Float32, list[MissingSamples]]:
        """Return float32[n_samples] of a clip, and the gaps in it."""
        return self._open_ring(self.rate).read(extent.start, extent.stop)

    def sidecar(
        self, span: ClipSpan, extent: Extent, missing: list[MissingSamples], run: str
    ) -> tuple[Path, dict[str, Any]]:
        """Return the path of a clip, without its suffix, and its description."""
        start = extent.start
        utc_ns = self._utc_ns(span, start)
        track = stream_file_name(self.name)
        day, when, utc = "undated", stream_file_name(run), None
        if utc_ns is not None:
            second = datetime.fromtimestamp(utc_ns // NS, UTC)
            micros = utc_ns % NS // 1000
            day = f"{second:%Y-%m-%d}"
            when = f"{second:%Y%m%dT%H%M%S}.{micros:06d}Z"
            utc = utc_text(utc_ns, "microseconds")
        description = {
            "version": 1,
            "stream": self.name,
            "run": run,
            "sample_rate": self.rate,
            "start": start,
            "stop": extent.stop,
            "utc": utc,
            "utc_ns": utc_ns,
            "event_sample_rate": self.lane_rate,
            "segments": [
                self._description(segment, start) for segment in span.segments
            ],
            "complete": not missing,
            "missing": [
                {"start": m.start, "stop": m.stop, "reason": m.reason} for m in missing
            ],
            "cut": extent.cut,
        }
        return Path(day) / track / f"{when}_{track}_s{start:012d}", description

    def _description(self, segment: ClipSegment, start: int) -> dict[str, Any]:
        mark, surprise = segment.mark, segment.surprise
        begin_s = start / self.rate
        return {
            "segment": mark.segment,
            "onset": mark.onset,
            "offset": mark.sample,
            "onset_s": round(mark.onset / self.lane_rate - begin_s, 6),
            "offset_s": round(mark.sample / self.lane_rate - begin_s, 6),
            "truncated": mark.truncated,
            "labels": [
                {
                    "unit": label.unit,
                    "posterior": label.posterior,
                    "status": label.status,
                    "model": label.model,
                }
                for label in segment.labels.values()
            ],
            "surprise": (
                None if surprise is None else {"mean": surprise[0], "max": surprise[1]}
            ),
        }

    def _utc_ns(self, span: ClipSpan, start: int) -> int | None:
        """Return the UTC of a sample of the source; None if it is not known."""
        first = span.segments[0]
        if first.utc_ns is None:
            return None
        offset_ns = first.mark.sample * NS // self.lane_rate
        return first.utc_ns - offset_ns + start * NS // self.rate

    def _open_ring(self, rate: int) -> ClipRing:
        if self._ring is None:
            self.rate = rate
            self._ring = ClipRing(round(self._lengths.ring_s * rate))
            self._declare_gaps()
        return self._ring

    def _declare_gaps(self) -> None:
        """Convert gaps to samples of the source, once its rate is known."""
        if self._ring is None:
            return
        for gap in self._gaps:
            edges = [
                scaled(s, self.lane_rate, self.rate) for s in (gap.start, gap.stop)
            ]
            self._ring.declare(edges[0], edges[1], gap.reason)
        self._gaps.clear()

    def _lane_parts(self, rate: int) -> tuple[SegmentGrouper, SurpriseHistory]:
        if self._grouper is None or self._surprise is None:
            lengths = self._lengths
            gap = lengths.bout_gap_s
            self.lane_rate = rate
            self._surprise = SurpriseHistory(round(lengths.ring_s * rate))
            self._grouper = SegmentGrouper(
                None if gap is None else round(gap * rate),
                round(lengths.longest_s * rate),
                round((lengths.post_roll_s + lengths.label_wait_s) * rate),
            )
        return self._grouper, self._surprise


def encode_audio(samples: Float32, rate: int, format: str) -> bytes:
    """Return a sound file with float32[n_samples] in memory."""
    import soundfile

    content = io.BytesIO()
    subtype = "PCM_24" if format == "flac" else "FLOAT"
    soundfile.write(content, samples, rate, format=format.upper(), subtype=subtype)
    return content.getvalue()

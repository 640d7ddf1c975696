"""One stream on its way into clips: its audio, its segments, and how a clip is told."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from neurovocal.engine.audio.resampler import scaled
from neurovocal.engine.contracts.clock import NS
from neurovocal.engine.contracts.types import (
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
from neurovocal.plugins.sinks.clips.ring import ClipRing, Missing
from neurovocal.plugins.sinks.clips.selection import (
    ClipSpan,
    Grouper,
    Heard,
    SurpriseHistory,
)
from neurovocal.plugins.storage.folder import track_name


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths of the sink's options in seconds; ``bout_gap`` None: no bouts."""

    ring: float
    longest: float
    pre_roll: float
    post_roll: float
    settle: float
    bout_gap: float | None


@dataclass(frozen=True, slots=True)
class Extent:
    """Samples of the source that a clip covers; ``cut``: not all of a segment."""

    start: int
    stop: int
    cut: bool


class ClipStream:
    """Audio at the rate of the source, segments at the rate of the lane.

    Either rate is known with the first message of its kind, in any order: behind a
    privacy gate labels come before their audio.

    Parameters
    ----------
    name : str
        Of the stream.
    lengths : Lengths
    """

    def __init__(self, name: str, lengths: Lengths) -> None:
        self.name = name
        self.rate = self.lane_rate = 0
        self._lengths = lengths
        self._ring: ClipRing | None = None
        self._grouper: Grouper | None = None
        self._surprise: SurpriseHistory | None = None
        self._gaps: list[Gap] = []  # that came before any audio

    def hear(self, item: Block | Withheld, rate: int) -> None:
        """Take audio, or learn that it may not be had."""
        ring = self._open_ring(rate)
        if isinstance(item, Block):
            ring.write(item)
        else:
            ring.skip(item.start, item.stop, item.reason)

    def note(self, event: Event, message: Message) -> None:
        """Take what the lane says."""
        grouper, surprise = self._lane_side(message.info.sample_rate)
        match event:
            case Gap():
                self._gaps.append(event)
                self._declare_gaps()
            case Onset():
                grouper.onset(event.sample)
            case Offset():
                heard = Heard(event, message.utc_ns)
                heard.surprise = surprise.over(event.onset, event.sample)
                grouper.offset(heard)
            case Label():
                grouper.label(event, message.at)
            case Surprise():
                surprise.add(event)

    def due(self, heard: int) -> Iterator[ClipSpan]:
        """Pieces that are complete when audio was heard up to `heard`."""
        if self._grouper is not None and self.rate:
            yield from self._grouper.due(scaled(heard, self.rate, self.lane_rate))

    def rest(self) -> Iterator[ClipSpan]:
        """All other pieces, at the end of the stream."""
        if self._grouper is not None:
            yield from self._grouper.rest()

    def extent(self, piece: ClipSpan) -> Extent:
        """Where the clip of a piece begins and ends."""
        lengths, rate = self._lengths, self.rate
        newest = self._ring.stop if self._ring else 0
        onset = scaled(piece.onset, self.lane_rate, rate)
        offset = scaled(piece.offset, self.lane_rate, rate)
        longest = round(lengths.longest * rate)
        cut = offset - onset > longest
        if cut:
            onset = offset - longest
        start = max(0, onset - round(lengths.pre_roll * rate))
        stop = min(offset + round(lengths.post_roll * rate), newest)
        return Extent(start, max(stop, start), cut)

    def read(self, extent: Extent) -> tuple[Float32, list[Missing]]:
        """Its samples, and what is missing in them."""
        return self._open_ring(self.rate).read(extent.start, extent.stop)

    def sidecar(
        self, piece: ClipSpan, extent: Extent, missing: list[Missing], run: str
    ) -> tuple[Path, dict[str, Any]]:
        """Where a clip belongs (without its ending), and what is said of it."""
        start = extent.start
        utc_ns = self._utc_ns(piece, start)
        track = track_name(self.name)
        day, when, utc = "undated", track_name(run), None
        if utc_ns is not None:
            second = datetime.fromtimestamp(utc_ns // NS, UTC)
            micros = utc_ns % NS // 1000
            day = f"{second:%Y-%m-%d}"
            when = f"{second:%Y%m%dT%H%M%S}.{micros:06d}Z"
            utc = f"{second:%Y-%m-%dT%H:%M:%S}.{micros:06d}Z"
        told = {
            "version": 1,
            "stream": self.name,
            "run": run,
            "sample_rate": self.rate,
            "start": start,
            "stop": extent.stop,
            "utc": utc,
            "utc_ns": utc_ns,
            "event_sample_rate": self.lane_rate,
            "segments": [self._told(segment, start) for segment in piece.segments],
            "complete": not missing,
            "missing": [
                {"start": m.start, "stop": m.stop, "reason": m.reason} for m in missing
            ],
            "cut": extent.cut,
        }
        return Path(day) / track / f"{when}_{track}_s{start:012d}", told

    def _told(self, segment: Heard, start: int) -> dict[str, Any]:
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

    def _utc_ns(self, piece: ClipSpan, start: int) -> int | None:
        """UTC of sample `start` from that of the first segment's offset."""
        first = piece.segments[0]
        if first.utc_ns is None:
            return None
        offset_ns = first.mark.sample * NS // self.lane_rate
        return first.utc_ns - offset_ns + start * NS // self.rate

    def _open_ring(self, rate: int) -> ClipRing:
        if self._ring is None:
            self.rate = rate
            self._ring = ClipRing(round(self._lengths.ring * rate))
            self._declare_gaps()
        return self._ring

    def _declare_gaps(self) -> None:
        """Hand on gaps, told at the lane's rate, once that of the source is known."""
        if self._ring is None:
            return
        for gap in self._gaps:
            edges = [
                scaled(s, self.lane_rate, self.rate) for s in (gap.start, gap.stop)
            ]
            self._ring.declare(edges[0], edges[1], gap.reason)
        self._gaps.clear()

    def _lane_side(self, rate: int) -> tuple[Grouper, SurpriseHistory]:
        if self._grouper is None or self._surprise is None:
            lengths = self._lengths
            gap = lengths.bout_gap
            self.lane_rate = rate
            self._surprise = SurpriseHistory(round(lengths.ring * rate))
            self._grouper = Grouper(
                None if gap is None else round(gap * rate),
                round(lengths.longest * rate),
                round((lengths.post_roll + lengths.settle) * rate),
            )
        return self._grouper, self._surprise


def encoded(samples: Float32, rate: int, format: str) -> bytes:
    """A sound file in memory: what the disk cannot take is then told by the disk."""
    import soundfile

    content = io.BytesIO()
    subtype = "PCM_24" if format == "flac" else "FLOAT"
    soundfile.write(content, samples, rate, format=format.upper(), subtype=subtype)
    return content.getvalue()

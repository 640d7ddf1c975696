"""Segments of a journal: what its runs have found, and where their sound is."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np

from neurovocal.engine import (
    NS,
    AudioFileError,
    Bundle,
    BundleError,
    Float32,
    Gap,
    Label,
    Message,
    NearMiss,
    Offset,
    Onset,
    Surprise,
)
from neurovocal.engine.contracts.bundle import load_bundle
from neurovocal.engine.journal.reader import Selection, read_messages
from neurovocal.engine.journal.store import runs, without_runs
from neurovocal.plugins.review.places import Sound, SoundPlaces, lane_length
from neurovocal.plugins.review.segments import (
    Collection,
    Recording,
    Segment,
)

_KINDS = ("onset", "offset", "label", "near_miss", "gap", "surprise")
_HOPS_A_SECOND = 1000
_KEY = "{run}/{stream}"


@dataclass
class _Draft:
    """A segment while its events are being read."""

    key: str
    onset: int
    offset: int = 0
    unit: str = ""
    posterior: float | None = None
    score: float | None = None
    kind: str = "segment"
    reason: str = ""


@dataclass
class _Stream:
    """What has been read of one stream of one run."""

    run: str
    name: str
    rate: int
    utc_ns: int | None = None
    drafts: list[_Draft] = field(default_factory=list)
    open: dict[int, _Draft] = field(default_factory=dict)  # by number of the segment
    counts: Counter[str] = field(default_factory=Counter)
    holes: list[tuple[int, int]] = field(default_factory=list)
    surprise: list[tuple[int, Float32]] = field(default_factory=list)
    hop_length: int = 0
    stop: int = 0

    @property
    def key(self) -> str:
        return _KEY.format(run=self.run, stream=self.name)

    def take(self, message: Message) -> None:
        """Add one event."""
        event = message.event
        if self.utc_ns is None and message.utc_ns is not None:
            self.utc_ns = message.utc_ns - message.sample * NS // self.rate
        match event:
            case Onset():
                self.open[event.segment] = self._draft(
                    f"s{event.segment}", event.sample
                )
                self.open[event.segment].score = event.score
            case Offset():
                draft = self._of(event.segment, event.onset)
                draft.offset = event.sample
                if event.revised_score is not None:
                    draft.score = event.revised_score
            case Label(status="final"):
                draft = self._of(event.segment, event.onset)
                draft.unit, draft.posterior = event.unit, event.posterior
                draft.offset = draft.offset or event.offset or 0
            case NearMiss():
                draft = self._draft(f"n{event.onset}", event.onset)
                draft.offset, draft.score = event.offset, event.score
                draft.kind, draft.reason = "near_miss", event.reason
            case Gap():
                self.holes.append((event.start, event.stop))
            case Surprise():
                self.hop_length = event.hop_length
                self.surprise.append((event.first, event.values))
        self.stop = max(self.stop, message.at)

    def _of(self, number: int, onset: int) -> _Draft:
        """Return the draft of a segment, also where its onset was not kept."""
        draft = self.open.get(number)
        if draft is None or draft.onset != onset:
            draft = self.open[number] = self._draft(f"s{number}", onset)
        return draft

    def _draft(self, name: str, onset: int) -> _Draft:
        """Return a new draft, whose key stays the same in every reading."""
        self.counts[name] += 1
        again = f"~{self.counts[name]}" if self.counts[name] > 1 else ""
        draft = _Draft(f"{self.key}/{name}{again}", onset)
        self.drafts.append(draft)
        return draft

    def segments(self) -> Iterator[Segment]:
        """Yield the segments that have ended."""
        mean = _SurpriseMeans(self.surprise, self.hop_length)
        for draft in self.drafts:
            if draft.offset > draft.onset:
                yield Segment(
                    draft.key,
                    self.key,
                    draft.onset,
                    draft.offset,
                    draft.unit,
                    "near_miss" if draft.kind == "near_miss" else "segment",
                    draft.posterior,
                    mean.of(draft.onset, draft.offset),
                    draft.score,
                    draft.reason,
                )


class _SurpriseMeans:
    """Mean surprise of parts of a stream."""

    def __init__(self, parts: Sequence[tuple[int, Float32]], hop_length: int) -> None:
        self._hop = hop_length
        numbers = [first + np.arange(len(values)) for first, values in parts]
        self._frames = np.concatenate([np.empty(0, np.int64), *numbers])
        every = np.concatenate([np.zeros(1, np.float32), *(v for _, v in parts)])
        self._sums = np.cumsum(np.nan_to_num(every), dtype=np.float64)

    def of(self, onset: int, offset: int) -> float | None:
        """Return the mean over the frames that begin in ``[onset, offset)``."""
        if not self._hop:
            return None
        low, high = np.searchsorted(
            self._frames, [onset / self._hop, offset / self._hop]
        )
        if high <= low:
            return None
        return round(float((self._sums[high] - self._sums[low]) / (high - low)), 4)


def read_journal(
    path: Path, selection: Selection | None = None, *, published: bool = False
) -> Collection:
    """Read the segments of a journal, which an engine may be writing.

    Of runs that heard the same recordings only the newest is read, unless runs are
    chosen. Of a recording that was heard again after a kill the last hearing counts.

    Parameters
    ----------
    path : Path
        The journal.
    selection : Selection, optional
        Runs, streams and times.
    published : bool
        Whether the sound is shown to whoever may open the page of a run: of runs with
        a privacy mode only what they published.

    Raises
    ------
    ConfigError
        It does not exist, is no journal, is of a newer version, cannot be read, or
        holds no run or nothing to review.
    """
    known = {record.run: record for record in runs(path)}
    if not known:
        raise without_runs(path)
    chosen = replace(selection or Selection(), kinds=_KINDS, heard="last")
    streams: dict[tuple[str, str], _Stream] = {}
    for run, message in read_messages(path, chosen):
        name = message.info.stream
        stream = streams.get((run, name))
        if stream is None:
            stream = streams[run, name] = _Stream(run, name, message.info.sample_rate)
        stream.take(message)
    places = {
        run: SoundPlaces(known[run], path, published=published)
        for run in {run for run, _ in streams}
    }
    return _collection(path, places, list(streams.values()), chosen.runs is None)


def _collection(
    path: Path, places: dict[str, SoundPlaces], streams: list[_Stream], newest: bool
) -> Collection:
    found: list[tuple[_Stream, Sound | None, str]] = []
    for stream in streams:
        try:
            found.append((stream, places[stream.run].find(stream.name), ""))
        except AudioFileError as error:
            found.append((stream, None, str(error)))
    notes = []
    if newest:
        found, left_out = _newest_of_each(found)
        if left_out:
            notes.append(
                f"{left_out} earlier hearing{'s' * (left_out > 1)} of the same "
                "recordings left out (--run chooses a run)"
            )
    problems = Counter(problem for _, _, problem in found if problem)
    notes += [
        f"{problem} ({n} streams)" if n > 1 else problem
        for problem, n in problems.items()
    ]
    hops = _Hops(places)
    recordings = {
        stream.key: _recording(stream, sound, problem, hops)
        for stream, sound, problem in found
    }
    segments = [each for stream, _, _ in found for each in stream.segments()]
    collection = Collection(path.name, recordings, segments, notes)
    if not segments:
        notes.append("no segment was found: add what you hear by dragging")
    collection.require_content()
    return collection


def _newest_of_each(
    found: list[tuple[_Stream, Sound | None, str]],
) -> tuple[list[tuple[_Stream, Sound | None, str]], int]:
    """Return the streams without earlier hearings of the same audio; count these."""
    last: dict[str, str] = {}
    for stream, sound, _ in found:
        if sound is not None and sound.key:
            last[sound.key] = stream.run
    kept = [
        each
        for each in found
        if each[1] is None or not each[1].key or last[each[1].key] == each[0].run
    ]
    return kept, len(found) - len(kept)


class _Hops:
    """Hop length of the frames of each run's lanes, from their bundles."""

    def __init__(self, places: dict[str, SoundPlaces]) -> None:
        self._bundles: dict[str, Bundle | None] = {}
        self._places = places

    def of(self, stream: _Stream) -> int:
        """Return the hop of a stream's lane, or a millisecond."""
        if stream.hop_length:
            return stream.hop_length
        for name in self._places[stream.run].bundles.values():
            if name not in self._bundles:
                self._bundles[name] = None
                with suppress(BundleError, OSError):
                    self._bundles[name] = load_bundle(name)
            bundle = self._bundles[name]
            front_end = bundle.manifest.stated_front_end if bundle else None
            if front_end is not None and front_end.sample_rate == stream.rate:
                return front_end.hop_length
        return max(1, stream.rate // _HOPS_A_SECOND)


def _recording(
    stream: _Stream, sound: Sound | None, problem: str, hops: _Hops
) -> Recording:
    recording = Recording(
        stream.key,
        stream.name,
        stream.rate,
        hop_length=hops.of(stream),
        utc_ns=stream.utc_ns,
        run=stream.run,
        problem=problem,
        holes=tuple(stream.holes),
    )
    if sound is None:
        return msgspec.structs.replace(recording, n_samples=stream.stop or None)
    return msgspec.structs.replace(
        recording,
        audio=sound.pieces,
        audio_rate=sound.rate,
        n_samples=lane_length(sound, stream.rate) or stream.stop or None,
    )

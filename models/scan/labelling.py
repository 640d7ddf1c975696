"""Labelling of recordings in a worker process: stages are built once, then reused."""

import atexit
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

from neurovocal.engine import (
    Anchor,
    AudioFileError,
    Block,
    BuildContext,
    ConfigError,
    EndOfStream,
    Label,
    NeurovocalError,
    Offset,
    Onset,
    StreamInfo,
)
from neurovocal.engine.audio.timeline import TimeBase
from neurovocal.engine.cli.session import plan_of_data
from neurovocal.engine.config.plan import LanePlan, Plan
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import channel_of
from neurovocal.engine.lane.builder import build_lane
from neurovocal.engine.lane.lane import Lane, Part, Step
from neurovocal.engine.support.compiled import load_kernels
from neurovocal.engine.support.platform import keep_freed_memory
from neurovocal.engine.support.text import plain_name
from neurovocal.models.scan.recordings import (
    ChangedError,
    Input,
    local_copy,
    station_of,
)
from neurovocal.models.scan.tables import (
    Partition,
    RecordingRow,
    SegmentRow,
    day_of,
    encode_rows,
    task_id,
)

# Samples read at once: the events do not depend on it.
_BLOCK_LENGTH = 65_536
# Libraries whose version can change a number of the result.
_LIBRARIES = ("neurovocal", "numpy", "scipy", "onnxruntime", "soxr", "pyarrow")
# A detector is checked at this rate if no bundle gives one; each recording's own rate
# is checked when the recording is read.
_CHECKED_RATE = 1_000_000
_DIGITS = 6
# Compiled kernels, of the same bits, pay after so much work in a process.
_KERNELS_AFTER_S = 2.0
# Memory of a process that is kept between two tiles. Dask has its workers return all
# above 64 KiB, so that each tile's arrays would be cleared anew: a quarter of the time.
_KEPT_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Job:
    """What is done to every recording of a scan; pickled to the workers.

    ``config`` holds tile, detector and models of a configuration, ``base`` the folder
    that its paths start from, ``files`` the content of the bundle's files by name,
    ``versions`` those of the libraries that a worker must have. ``digest`` is the key
    under which a worker keeps what it has built for the job.
    """

    digest: str

    config: Mapping[str, Any]
    base: str
    files: Mapping[str, bytes]
    channels: tuple[int, ...]
    timezone: str | None
    station: str | None
    versions: Mapping[str, str]
    provenance: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Task:
    """Recordings that are read one after the other in one worker."""

    inputs: tuple[Input, ...]

    @property
    def name(self) -> str:
        """Name of the task, which its files have."""
        return task_id([(each.shown, each.version) for each in self.inputs])

    @property
    def size(self) -> int:
        """Bytes of all recordings, as far as they are known."""
        return sum(each.size or 0 for each in self.inputs)


@dataclass(frozen=True, slots=True)
class Done:
    """Result of a task.

    ``parts`` holds Parquet files by partition. ``later`` names recordings of which
    nothing was kept because of what may pass, with the reason: such a task is not
    finished.
    """

    parts: Mapping[Partition, bytes]
    recordings: tuple[RecordingRow, ...]
    later: Mapping[str, str]
    cpu_s: float


@cache
def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that can change a number of the result."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def plan_job(config: Mapping[str, Any], base: Path, bundle: Path | None) -> Plan:
    """Return the plan of a job's stages; all that needs no recording is checked.

    Raises
    ------
    ConfigError
        The bundle or the detector cannot be used.
    """
    data = dict(config)
    if bundle is not None:
        data["bundle"] = str(bundle)
    # The planner asks for both; neither is opened.
    rate = {"sample_rate": _CHECKED_RATE}
    data["source"] = {"plugin": "synthetic", "options": rate}
    data["sinks"] = [{"plugin": "table", "options": {"path": "-"}}]
    return plan_of_data(data, base)


def run_task(job: Job, task: Task) -> Done:
    """Label the recordings of a task; called in a worker.

    Raises
    ------
    ConfigError
        The worker has other versions than the program that asks, or lacks what the
        job needs.
    """
    started = process_time()
    labeller = _labeller(job)
    rows: list[SegmentRow] = []
    recordings: list[RecordingRow] = []
    stations: list[str] = []
    later: dict[str, str] = {}
    for each in task.inputs:
        try:
            with local_copy(each) as path:
                found, row = labeller.label(each, path)
        except ChangedError:
            later[each.shown] = "it changed while it was read"
            continue
        except OSError as error:
            later[each.shown] = f"it cannot be read: {error.strerror or error}"
            continue
        recordings.append(row)
        stations += [row.station] * len(found)
        rows += found
    parts: dict[Partition, list[SegmentRow]] = {}
    for station, segment in zip(stations, rows, strict=True):
        parts.setdefault((day_of(segment.onset_utc), station), []).append(segment)
    encoded = {
        partition: encode_rows(SegmentRow, some, job.provenance)
        for partition, some in sorted(parts.items())
    }
    return Done(encoded, tuple(recordings), later, process_time() - started)


@cache
def _labeller_of(digest: str) -> "list[_Labeller]":
    """Return the place that keeps the labeller of a job in this process."""
    return []


def _labeller(job: Job) -> "_Labeller":
    place = _labeller_of(job.digest)
    if not place:
        place.append(_Labeller(job))
    return place[0]


class _Labeller:
    """Stages of a job in this process: plan, bundle on this disk, lanes by rate."""

    def __init__(self, job: Job) -> None:
        here = library_versions()
        other = [
            f"{name} {here.get(name)} (here {wanted})"
            for name, wanted in job.versions.items()
            if here.get(name) != wanted
        ]
        if other:
            raise ConfigError(
                f"a worker has {', '.join(other)}: its results would differ; install "
                "the same versions on all workers"
            )
        keep_freed_memory(_KEPT_BYTES)
        self._job = job
        bundle = _unpack(job.files) if job.files else None
        plan = plan_job(job.config, Path(job.base), bundle)
        self._plan: LanePlan = plan.lanes[0]
        self._context = plan.context
        self._source = Registry().get("source", "file")
        # Lanes by the rate of the source and the column; each is used by one recording
        # at a time, and begins a new stream for the next.
        self._lanes: dict[tuple[int, int], Lane] = {}
        self._has_kernels = False
        self._began_s = process_time()

    def label(
        self, recording: Input, path: Path
    ) -> tuple[list[SegmentRow], RecordingRow]:
        """Return the segments of a recording, and what became of it.

        Parameters
        ----------
        recording : Input
            As it was listed.
        path : Path
            Where it lies on this machine.

        Raises
        ------
        OSError
            The disk fails.
        """
        if not self._has_kernels and process_time() - self._began_s > _KERNELS_AFTER_S:
            self._has_kernels = True
            load_kernels()
        reading = _Reading(self._job, recording, path)
        state, reason = "done", None
        try:
            rows = list(self._rows(reading))
        except Exception as error:
            _raise_if_passing(error)
            self._lanes.clear()  # a lane that was left in the middle is not reused
            rows, state, reason = [], "bad", _reason(error)
        else:
            if reading.failures:
                state, reason = "partial", "; ".join(reading.failures)
        note = "; ".join(reading.notes) or None
        station = station_of(recording.name, self._job.station)
        row = RecordingRow(
            recording.shown,
            recording.size,
            recording.version,
            plain_name(station),
            reading.start_utc,
            round(reading.audio_s, _DIGITS),
            len(rows),
            state,
            _of_name(reason, path, recording.shown),
            _of_name(note, path, recording.shown),
        )
        return rows, row

    def _rows(self, reading: "_Reading") -> Iterator[SegmentRow]:
        source = reading.open(self._source, self._context)
        try:
            channels: list[_Channel] = []
            for item in _items(source):
                if isinstance(item, StreamInfo):
                    channels = self._channels(item, reading)
                    continue
                reading.count(item, source.info.sample_rate)
                for index, channel in enumerate(channels):
                    part = _column(item, index)
                    for step in channel.lane.process(part):
                        yield from channel.rows(step)
            for channel in channels:
                for step in channel.lane.flush():
                    yield from channel.rows(step)
            reading.failures += source.failures
            reading.notes += source.notices
        finally:
            source.close()

    def _channels(self, info: StreamInfo, reading: "_Reading") -> "list[_Channel]":
        channels = []
        for index in range(info.channels):
            key = info.sample_rate, index
            lane = self._lanes.get(key)
            if lane is None:
                lane = self._lanes[key] = build_lane(
                    self._plan, info, index, self._context, wants_frames=False
                )
            else:
                lane.reset()
                name = replace(lane.info, stream=info.stream, numbers=())
                lane.info = replace(name, duration_s=info.duration_s)
            channels.append(
                _Channel(
                    lane, channel_of(info, index), reading, bool(self._plan.models)
                )
            )
        return channels


class _Reading:
    """Reading of one recording: its source, its time, and what went wrong."""

    def __init__(self, job: Job, recording: Input, path: Path) -> None:
        self.name = recording.shown
        self.failures: list[str] = []
        self.notes: list[str] = []
        self.audio_s = 0.0
        self.start_utc: int | None = None
        self.timebase = TimeBase(1)
        self._options: dict[str, Any] = {
            "path": str(path),
            "names": "path",
            "on_bad_file": "fail",
            "block_length": _BLOCK_LENGTH,
            "channels": list(job.channels),
        }
        if job.timezone is not None:
            self._options["timezone"] = job.timezone

    def open(self, plugin: Any, context: BuildContext) -> Any:
        """Return the open source of the recording."""
        options = plugin.options.model_validate(self._options)
        source = plugin.build(options, context)
        source.open()
        self.timebase = TimeBase(source.info.sample_rate)
        return source

    def count(self, item: Part, rate: int) -> None:
        """Note the time of the recording, and how long it is."""
        if isinstance(item, Anchor):
            self.timebase.add(item)
            self.start_utc = self.timebase.utc_ns(0)
        else:
            self.audio_s = item.stop / rate


class _Channel:
    """Lane of a channel, and the rows that its events become."""

    def __init__(
        self, lane: Lane, number: int, reading: _Reading, has_labels: bool
    ) -> None:
        self.lane = lane
        self._number = number
        self._reading = reading
        self._has_labels = has_labels
        self._scores: dict[int, float] = {}
        self._truncated: dict[int, bool] = {}

    def rows(self, step: Step) -> Iterator[SegmentRow]:
        """Yield a row for each segment that a step completes."""
        for event in step.events:
            if isinstance(event, Onset):
                self._scores[event.segment] = event.score
            elif isinstance(event, Offset):
                if event.revised_score is not None:
                    self._scores[event.segment] = event.revised_score
                self._truncated[event.segment] = event.truncated
                if not self._has_labels:
                    yield self._row(event.segment, event.onset, event.sample, None)
            elif (
                isinstance(event, Label)
                and event.status == "final"
                and event.offset is not None
            ):
                yield self._row(event.segment, event.onset, event.offset, event)

    def _row(
        self, segment: int, onset: int, offset: int, label: Label | None
    ) -> SegmentRow:
        rate = self.lane.info.sample_rate
        utc_ns = self._reading.timebase.utc_ns
        return SegmentRow(
            self._reading.name,
            self._number,
            onset,
            offset,
            rate,
            round(onset / rate, _DIGITS),
            round(offset / rate, _DIGITS),
            utc_ns(onset, rate),
            utc_ns(offset, rate),
            None if label is None else label.unit,
            None if label is None else _number(label.posterior),
            _number(self._scores.get(segment, float("nan"))),
            self._truncated.get(segment, False),
        )


def _items(source: Any) -> Iterator[Any]:
    while True:
        try:
            item = source.read(0.0)
        except EndOfStream:
            return
        if item is not None:
            yield item


def _column(item: Part, index: int) -> Part:
    if not isinstance(item, Block) or item.samples.shape[1] == 1:
        return item
    samples = np.ascontiguousarray(item.samples[:, index : index + 1])
    return replace(item, samples=samples)


def _number(value: float) -> float | None:
    return None if value != value else round(float(value), _DIGITS)


def _raise_if_passing(error: Exception) -> None:
    """Raise the error of a disk behind an error: it may pass, the recording is fine."""
    reason = error if isinstance(error, OSError) else error.__cause__
    missing = isinstance(reason, FileNotFoundError)
    if isinstance(reason, OSError) and reason.errno is not None and not missing:
        raise reason


def _reason(error: Exception) -> str:
    if isinstance(error, NeurovocalError | AudioFileError):
        return str(error)
    return f"a stage failed ({type(error).__name__}: {error})"


def _of_name(sentence: str | None, path: Path, name: str) -> str | None:
    """Return a sentence with the name that a recording has in its archive."""
    return sentence and sentence.replace(str(path), name)


def _unpack(files: Mapping[str, bytes]) -> Path:
    """Write a bundle's files to a folder that lasts as long as this process."""
    folder = tempfile.TemporaryDirectory(prefix="neurovocal-bundle-")
    atexit.register(folder.cleanup)
    for name, content in files.items():
        path = Path(folder.name, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return Path(folder.name)


def pack(folder: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Return the content of a bundle's files by name, for `Job`."""
    return {
        name: Path(folder, name).read_bytes()
        for name in sorted(names)
        if os.path.isfile(Path(folder, name))
    }

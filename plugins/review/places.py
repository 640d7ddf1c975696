"""Files with the sound of a recorded run: recordings, kept audio, or clips."""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from pydantic import ValidationError

from neurovocal.engine import AudioFileError, BuildContext, ConfigError
from neurovocal.engine.audio.resampler import scaled
from neurovocal.engine.config.located_yaml import parse_located
from neurovocal.engine.config.recorded import recorded_base
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.journal.store import RunRecord
from neurovocal.engine.support.names import at_home
from neurovocal.plugins.review.audio import header_of
from neurovocal.plugins.review.segments import AudioPiece
from neurovocal.plugins.sources.audio_files.file import RecordingHeader, stream_names
from neurovocal.plugins.sources.audio_files.selection import find_all
from neurovocal.plugins.sources.file import FileOptions
from neurovocal.plugins.sources.folder.source import FolderOptions
from neurovocal.plugins.sources.playback import PlaybackOptions
from neurovocal.plugins.sources.recording import RecordedOptions, Track, read_track

_CHANNEL = re.compile(r"(?P<name>.+)\.ch(?P<channel>[1-9][0-9]{0,3})", re.S)
_REPEATED = re.compile(r"~\d+$")
_MOST_REPEATS = 1000


@dataclass(frozen=True, slots=True)
class Sound:
    """Audio of a stream: pieces, their rate in Hz, and the length if it is known.

    ``key`` names the audio file and channel where the stream is a recording that
    another run may have heard as well; else it is empty.
    """

    pieces: tuple[AudioPiece, ...]
    rate: int
    n_samples: int | None = None
    key: str = ""


class SoundPlaces:
    """Finds the sound of the streams of one run.

    Parameters
    ----------
    record : RunRecord
        The run, with its configuration.
    journal : Path
        Its journal: paths of outputs are also looked for beside it.
    published : bool
        Whether only sound is found that the run itself may publish: behind a privacy
        mode not the files of its source, but what the gate has passed on to sinks.
    """

    def __init__(
        self, record: RunRecord, journal: Path, *, published: bool = False
    ) -> None:
        self._run = record.run
        self._base = recorded_base(record.config)
        self._journal = journal
        self._context = BuildContext(clock=SystemClock(), run="review", base=self._base)
        data = _config_of(record.config)
        self._station = str(data.get("station", "neurovocal"))
        lanes = data.get("lanes", [data])
        self._lanes = [each for each in lanes if isinstance(each, dict)]
        own = (sink for lane in self._lanes for sink in lane.get("sinks", []))
        shared = data.get("sinks", []) if "lanes" in data else []
        self._sinks = [each for each in (*shared, *own) if isinstance(each, dict)]
        self._withholds = published and _withholds(data)
        self._tracks: dict[str, Track] | None = None
        self._clips: dict[str, Sound] | None = None
        self._missing: list[str] = []

    @property
    def bundles(self) -> dict[str, str]:
        """Bundle of each lane by the name of the lane, as it was configured."""
        return {
            str(lane.get("name") or self._station): str(lane["bundle"])
            for lane in self._lanes
            if lane.get("bundle")
        }

    def find(self, stream: str) -> Sound:
        """Return the sound of a stream.

        Raises
        ------
        AudioFileError
            It is nowhere; the sentence says what is missing.
        """
        self._missing = []
        for look in (self._in_recording, self._in_sources, self._in_clips):
            if (found := look(stream)) is not None:
                return found
        raise AudioFileError(self._why_not())

    # ---- the recording sink ----

    def _in_recording(self, stream: str) -> Sound | None:
        if self._tracks is None:
            self._tracks = {}
            for folder in self._folders("recording"):
                for timeline in sorted(folder.glob("*.jsonl")):
                    self._add_track(timeline)
        track = self._tracks.get(stream)
        if track is None:
            return None
        try:
            n_samples = header_of(track.audio).n_samples or 0
        except AudioFileError as error:
            self._missing.append(str(error))
            return None
        pieces, position, at = [], 0, 0
        for gap in track.gaps:
            pieces.append(AudioPiece(str(track.audio), position, at, gap.at - at))
            position, at = gap.stop, gap.at
        pieces.append(AudioPiece(str(track.audio), position, at, n_samples - at))
        length = position + n_samples - at
        kept = tuple(piece for piece in pieces if piece.n_samples)
        return Sound(kept, track.info.sample_rate, length)

    def _add_track(self, timeline: Path) -> None:
        assert self._tracks is not None
        try:
            track = read_track(timeline)
        except AudioFileError as error:
            self._missing.append(str(error))
            return
        if track.run in ("", self._run):
            self._tracks.setdefault(track.info.stream, track)

    # ---- sources that read files ----

    def _in_sources(self, stream: str) -> Sound | None:
        if self._withholds:
            self._missing.append(
                "privacy withholds the sound of the source here (docs/how-to/clips.md)"
            )
            return None
        for lane in self._lanes:
            source = lane.get("source")
            if not isinstance(source, dict):
                continue
            read = _SOURCES.get(str(source.get("plugin")))
            if read is None:
                continue
            form, look = read
            try:
                options = form.model_validate(source.get("options", {}))
            except ValidationError:
                continue  # of another version of the plugin
            name = str(lane.get("name") or self._station)
            try:
                found: Sound | None = look(self, options, name, stream)
            except (AudioFileError, OSError) as error:
                self._missing.append(str(error))
                continue
            if found is not None:
                return found
        return None

    def _in_files(self, options: FileOptions, name: str, stream: str) -> Sound | None:
        plain, channel = _parts(stream)
        channels = _channels(options.channels or [1], options.mix, channel)
        paths, problems = find_all(options.path, self._context, options.recursive)
        self._missing += problems
        if options.streams == "one":
            if plain != name:
                return None
            return _in_turn([header_of(path) for path in paths], channels)
        names = stream_names(paths, options.names)
        wanted = _REPEATED.sub("", plain)
        for path, own in zip(paths, names, strict=True):
            if own in (plain, wanted, stream):
                return _whole(header_of(path), channels)
        return None

    def _in_folder(
        self, options: FolderOptions, name: str, stream: str
    ) -> Sound | None:
        plain, channel = _parts(stream)
        channels = _channels(options.channels, options.mix, channel)
        folders = [self._context.path(options.path)]
        if options.set_aside:
            folders.append(self._context.path(options.set_aside))
        for folder in folders:
            for each in (plain, stream):
                if (folder / each).is_file():
                    return _whole(header_of(folder / each), channels)
        self._missing.append(f"'{folders[0] / plain}' is missing")
        return None

    def _in_playback(
        self, options: PlaybackOptions, name: str, stream: str
    ) -> Sound | None:
        plain, channel = _parts(stream)
        if name not in (plain, stream):
            return None
        channels = _channels(options.channels, options.mix, channel)
        header = header_of(self._context.path(options.path))
        n_samples = header.n_samples or 0
        first = min(round(options.start_s * header.sample_rate), n_samples)
        pieces = [AudioPiece(str(header.path), 0, first, n_samples - first, channels)]
        at = n_samples - first
        for _ in range(1, min(options.repeat or _MOST_REPEATS, _MOST_REPEATS)):
            pieces.append(AudioPiece(str(header.path), at, 0, n_samples, channels))
            at += n_samples
        length = at if options.repeat else None
        return Sound(tuple(pieces), header.sample_rate, length)

    def _in_recorded(
        self, options: RecordedOptions, name: str, stream: str
    ) -> Sound | None:
        """Look in a folder that the ``recording`` source of this run read."""
        before = self._tracks
        self._tracks = {}
        try:
            for timeline in sorted(self._context.path(options.path).glob("*.jsonl")):
                track = read_track(timeline)
                if options.run is None or track.run in ("", options.run):
                    self._tracks.setdefault(track.info.stream, track)
            return self._in_recording(stream)
        finally:
            self._tracks = before

    # ---- the clips sink ----

    def _in_clips(self, stream: str) -> Sound | None:
        if self._clips is None:
            self._clips = {}
            pieces: defaultdict[str, list[AudioPiece]] = defaultdict(list)
            rates: dict[str, int] = {}
            for folder in self._folders("clips"):
                for clip in read_clips(folder):
                    if clip.run == self._run:
                        length = clip.stop - clip.start
                        pieces[clip.stream].append(
                            AudioPiece(str(clip.path), clip.start, 0, length)
                        )
                        rates[clip.stream] = clip.sample_rate
            self._clips = {
                name: Sound(tuple(found), rates[name]) for name, found in pieces.items()
            }
        return self._clips.get(stream)

    # ---- both ----

    def _folders(self, plugin: str) -> Iterator[Path]:
        """Yield the folders that exist of the sinks of a kind.

        Outputs are relative to where the run was started, which nobody has noted.
        """
        for sink in self._sinks:
            options = sink.get("options", {})
            if sink.get("plugin") != plugin or not isinstance(options, dict):
                continue
            path = at_home(str(options.get("path", "")))
            places = [path, self._base / path, self._journal.parent / path]
            found = [place for place in places if place.is_dir()]
            if found:
                yield found[0]
            else:
                self._missing.append(
                    f"folder '{path}' of the sink '{plugin}' is missing"
                )

    def _why_not(self) -> str:
        if self._missing:
            more = f" (and {len(self._missing) - 1} more)" if self._missing[1:] else ""
            return f"no sound: {self._missing[0]}{more}"
        kinds = sorted(
            {str(lane.get("source", {}).get("plugin")) for lane in self._lanes}
        )
        return (
            f"no sound: the audio of a '{' or '.join(kinds)}' source was not kept; add "
            "{plugin: recording, options: {path: FOLDER}} to the sinks of such runs"
        )


class _ClipSegment(msgspec.Struct):
    """Segment in the sidecar of a clip."""

    segment: int
    onset_s: float
    offset_s: float
    labels: list[dict[str, Any]] = []
    surprise: dict[str, float] | None = None


class _Sidecar(msgspec.Struct):
    """Sidecar of a clip (docs/how-to/clips.md)."""

    audio: str
    stream: str
    run: str
    sample_rate: int
    start: int
    stop: int
    utc_ns: int | None = None
    segments: list[_ClipSegment] = []


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip of the ``clips`` sink; positions count at the rate of its audio."""

    path: Path
    stream: str
    run: str
    sample_rate: int
    start: int
    stop: int
    utc_ns: int | None
    segments: list[_ClipSegment]


_sidecars = msgspec.json.Decoder(_Sidecar)


def read_clips(folder: Path) -> Iterator[Clip]:
    """Yield the clips of a folder that the ``clips`` sink wrote, in order of name."""
    for path in sorted(folder.glob("*/*/*.json")):
        try:
            read = _sidecars.decode(path.read_bytes())
        except (OSError, msgspec.MsgspecError):
            continue  # of another program
        audio = path.with_name(Path(read.audio).name)
        if audio.is_file() and read.sample_rate > 0:
            yield Clip(
                audio,
                read.stream,
                read.run,
                read.sample_rate,
                read.start,
                read.stop,
                read.utc_ns,
                read.segments,
            )


def _config_of(text: str) -> dict[str, Any]:
    try:
        data = parse_located(text, "journal", keep_unset=True).data
    except ConfigError:
        return {}
    return data if isinstance(data, dict) else {}


def _withholds(data: dict[str, Any]) -> bool:
    """Return whether a configuration lets not all audio leave the engine."""
    for each in (data, *data.get("lanes", [])):
        privacy = each.get("privacy") if isinstance(each, dict) else None
        # YAML reads a bare `off` as False.
        if privacy is not None and not (
            isinstance(privacy, dict) and privacy.get("mode") in ("off", False)
        ):
            return True
    return False


def _parts(stream: str) -> tuple[str, int | None]:
    """Return the name of a stream without its channel, and the channel."""
    found = _CHANNEL.fullmatch(stream)
    return (found["name"], int(found["channel"])) if found else (stream, None)


def _channels(asked: list[int], mix: bool, channel: int | None) -> tuple[int, ...]:
    if mix:
        return tuple(asked)
    return (channel if channel in asked and len(asked) > 1 else asked[0],)


def _whole(header: RecordingHeader, channels: tuple[int, ...]) -> Sound:
    piece = AudioPiece(str(header.path), 0, 0, header.n_samples, channels)
    key = f"{header.path.resolve()}:{channels}"
    return Sound((piece,), header.sample_rate, header.n_samples, key)


def _in_turn(headers: list[RecordingHeader], channels: tuple[int, ...]) -> Sound | None:
    """Return recordings that were one stream, one after the other."""
    if not headers:
        return None
    pieces, at = [], 0
    for header in headers:
        length = header.n_samples or 0
        pieces.append(AudioPiece(str(header.path), at, 0, length, channels))
        at += length
    key = f"{headers[0].path.resolve()}:{len(headers)}:{channels}"
    return Sound(tuple(pieces), headers[0].sample_rate, at, key)


def lane_length(sound: Sound, rate: int) -> int | None:
    """Return the length of a sound at the rate of its lane; None: not known."""
    if sound.n_samples is None:
        return None
    return scaled(sound.n_samples, sound.rate, rate)


_SOURCES: dict[str, Any] = {
    "file": (FileOptions, SoundPlaces._in_files),
    "folder": (FolderOptions, SoundPlaces._in_folder),
    "playback": (PlaybackOptions, SoundPlaces._in_playback),
    "recording": (RecordedOptions, SoundPlaces._in_recorded),
}

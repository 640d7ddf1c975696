"""Discovery from recordings to draft annotations, stage by stage."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from neurovocal.engine.contracts.errors import AudioFileError, ConfigError
from neurovocal.engine.contracts.types import Float32
from neurovocal.models.discovery.autoencoder import (
    outlier_scores,
    outlier_table,
    write_autoencoder,
)
from neurovocal.models.discovery.clusters import (
    UNKNOWN,
    default_size,
    find_clusters,
    joined_features,
    make_map,
)
from neurovocal.models.discovery.edits import EditedClusters, listed
from neurovocal.models.discovery.folder import DiscoveryFolder, Request
from neurovocal.models.discovery.patches import spec_of, write_patches
from neurovocal.models.discovery.segments import (
    DetectorChoice,
    Segments,
    SourceRecording,
    detect_recording,
)
from neurovocal.models.discovery.states import StateAverager
from neurovocal.models.discovery.vae import VaeSettings, VaeTask
from neurovocal.models.toolkit.loop import (
    Budget,
    History,
    StopFlag,
    TrainingInterrupted,
    fit,
)
from neurovocal.models.toolkit.progress import Reporter
from neurovocal.plugins.features.patches import Patches
from neurovocal.plugins.storage.file_lock import FileLock

_CHECKPOINT_S = 10.0
_LEAST_TRAINED = 8  # segments that an autoencoder is trained on


@dataclass(frozen=True, slots=True)
class Found:
    """Numbers of a finished discovery.

    Parameters
    ----------
    recordings, silent, set_aside : int
        Recordings, those of them without sounds, and those that cannot be read.
    segments, unknown, clusters : int
        Segments, those of them in no cluster, and clusters.
    """

    recordings: int
    silent: int
    set_aside: int
    segments: int
    unknown: int
    clusters: int


class Discovery:
    """A discovery in a folder, which goes on where it was stopped.

    Parameters
    ----------
    folder : DiscoveryFolder
        Folder that is written.
    request : Request
        What is asked for.
    detector : DetectorChoice
        Detector of the request.
    reporter : Reporter
        Receives messages and progress.
    stop : StopFlag
        Request to stop.
    """

    def __init__(
        self,
        folder: DiscoveryFolder,
        request: Request,
        detector: DetectorChoice,
        reporter: Reporter,
        stop: StopFlag,
    ) -> None:
        self._folder, self._request = folder, request
        self._detector = detector
        self._reporter, self._stop = reporter, stop

    def run(self, *, overwrite: bool = False) -> Found:
        """Find segments, features, map and clusters, and write draft annotations.

        Raises
        ------
        ConfigError
            No recording can be read, or none has sounds.
        TrainingInterrupted
            `stop` was raised; the same call goes on from there.
        """
        lock = FileLock()
        self._folder.begin(self._request, overwrite=overwrite)
        try:
            lock.acquire(self._folder.path)
        except ConfigError as error:
            raise ConfigError(
                f"another process writes to '{self._folder.path}': wait for its "
                "end, or name another --out"
            ) from error
        try:
            return self._run()
        finally:
            lock.release()

    def _run(self) -> Found:
        if not self._folder.is_finished:
            recordings, segments = self._segments()
            self._check_found(recordings, segments)
            features = self._features(recordings, segments)
            self._arrange(features)
            self._folder.update_state(finished=True)
            edited = EditedClusters(self._folder)
            kept = self._folder.write_annotations(edited.annotations())
            if kept is not None:
                self._reporter.print_message(f"note: the table before is '{kept}' now")
        else:
            self._reporter.print_message(
                f"'{self._folder.path}' is finished already: nothing was computed anew"
            )
        return summary(self._folder)

    def _segments(self) -> tuple[list[SourceRecording], Segments]:
        """Search every recording that was not searched before."""
        names = self._request.recordings
        done = [
            (recording, rows)
            for recording, rows in self._folder.found()
            if recording.path in set(names)
        ]
        self._folder.keep_found(done)
        with self._reporter.stage("detecting") as on_progress:
            for number in range(len(done), len(names)):
                self._check_stop("searching recordings")
                recording, rows = detect_recording(
                    Path(names[number]), number, self._request.channels, self._detector
                )
                self._folder.add_found(recording, rows)
                done.append((recording, [list(row) for row in rows]))
                share = (number + 1) / len(names)
                on_progress(share, f"{number + 1} of {len(names)} recordings")
        recordings = [recording for recording, _ in done]
        return recordings, Segments.of_rows(
            [(row[0], row[1], row[2], row[3]) for _, rows in done for row in rows]
        )

    def _check_found(
        self, recordings: Sequence[SourceRecording], segments: Segments
    ) -> None:
        """Tell what is wrong with recordings; raise if there is nothing to go on with.

        A discovery that cannot go on leaves no list of recordings: mended ones are
        searched again.
        """
        tell = self._reporter.print_message
        for recording in recordings:
            if recording.problem:
                aside = "" if recording.sample_rate else ": it is set aside"
                tell(f"note: {recording.problem}{aside}")
        read = [r for r in recordings if r.sample_rate]
        if not read:
            self._folder.keep_found([])
            raise ConfigError(
                f"none of {len(recordings)} recordings can be read: see above"
                if len(recordings) > 1
                else "the recording cannot be read: see above"
            )
        rates = Counter(r.sample_rate for r in read)
        if len(rates) > 1:
            rate = listed([f"{n} at {each} Hz" for each, n in rates.most_common()])
            tell(f"note: sample rates differ ({rate}): bands of the commonest are used")
        n_silent = _n_silent(recordings, segments)
        if len(segments) == 0:
            self._folder.keep_found([])
            raise ConfigError(
                f"no sounds were found in {len(read)} "
                f"recording{'s' if len(read) > 1 else ''}: try another detector, such "
                "as --config songbird, or --like TABLE with five calls"
            )
        if n_silent:
            tell(f"note: {n_silent} of {len(read)} recordings have no sounds")

    def _features(
        self, recordings: Sequence[SourceRecording], segments: Segments
    ) -> Float32:
        """Return the features of all segments."""
        kept = self._folder.features()
        if kept is not None and len(kept) == len(segments):
            return kept
        n = len(segments)
        durations_s = segments.durations_s(recordings)
        spec = spec_of(recordings, durations_s, self._detector.options)
        self._folder.keep_segments(segments, spec)
        patches = self._folder.patches(n, write=True)
        used = sorted({int(number) for number in segments.recording})
        with self._reporter.stage("patches") as on_progress:
            for at, number in enumerate(used):
                self._check_stop("drawing patches")
                problem = write_patches(patches, recordings, segments, spec, number)
                if problem:
                    raise ConfigError(f"{problem}: run the same command again")
                on_progress((at + 1) / len(used), "")
        parts = [self._trained(patches, recordings, segments)]
        bundle = self._detector.bundle
        if bundle is not None and bundle.manifest.rnn_rbm is not None:
            parts.append(self._states(recordings, segments))
        features = joined_features(parts, self._request.seed)
        if not np.isfinite(features).all():
            raise ConfigError("the features are not finite: is the audio damaged?")
        self._folder.keep_features(features)
        return features

    def _trained(
        self,
        patches: Patches,
        recordings: Sequence[SourceRecording],
        segments: Segments,
    ) -> Float32:
        """Train the autoencoder, write its graphs and outliers; return its features."""
        torch.set_num_threads(1)  # sums of several threads differ from run to run
        if len(patches) < _LEAST_TRAINED:
            flat = np.asarray(patches, np.float32).reshape(len(patches), -1) / 255.0
            return flat[:, ::4]  # too few to learn from: levels themselves
        settings = replace(VaeSettings(), updates=self._request.updates)
        task = VaeTask(patches, settings, self._request.seed)
        with self._reporter.stage(task.name) as on_progress:

            def report(progress: float, history: History, loss: float) -> None:
                on_progress(min(1.0, progress), f"loss {loss:.0f}")

            fit(
                task,
                self._folder.checkpoint,
                Budget(None),
                self._stop,
                _CHECKPOINT_S,
                report,
            )
        write_autoencoder(self._folder.path, task, patches)
        scores = outlier_scores(task, patches)
        self._folder.keep_outliers(outlier_table(scores, recordings, segments))
        return task.features()

    def _states(
        self, recordings: Sequence[SourceRecording], segments: Segments
    ) -> Float32:
        """Return the averaged states of the bundle's RNN-RBM."""
        bundle = self._detector.bundle
        assert bundle is not None
        averager = StateAverager(bundle)
        states = np.zeros((len(segments), averager.n_features), np.float32)
        used = sorted({int(number) for number in segments.recording})
        with self._reporter.stage("RNN-RBM") as on_progress:
            for at, number in enumerate(used):
                self._check_stop("computing states of the RNN-RBM")
                try:
                    averager.write(states, recordings, segments, number)
                except AudioFileError as error:
                    raise ConfigError(f"{error}: run the same command again") from error
                on_progress((at + 1) / len(used), "")
        return states

    def _arrange(self, features: Float32) -> None:
        """Make map and clusters."""
        seed, n = self._request.seed, len(features)
        with self._reporter.stage("map") as on_progress:
            if self._folder.has_map():
                places = self._folder.places()
            else:
                minutes = min(n, 10_000) / 4000
                on_progress(0.0, f"about {minutes:.1f} min" if minutes > 0.5 else "")
                places = make_map(features, seed)
                self._folder.keep_map(places)
            on_progress(0.8, "clusters")
            self._check_stop("making the map")
            min_size = self._request.min_size or default_size(n)
            self._folder.keep_clusters(find_clusters(places, features, min_size, seed))
            self._folder.update_state(min_size=min_size)
            on_progress(1.0, "")

    def _check_stop(self, doing: str) -> None:
        if self._stop.raised:
            raise TrainingInterrupted(
                f"stopped while {doing}: run the same command again to go on from there"
            )


def _n_silent(recordings: Sequence[SourceRecording], segments: Segments) -> int:
    heard = {int(number) for number in np.unique(segments.recording)}
    return sum(
        1
        for number, recording in enumerate(recordings)
        if recording.sample_rate and number not in heard
    )


def summary(folder: DiscoveryFolder) -> Found:
    """Return the numbers of a finished discovery, with the changes of people."""
    edited = EditedClusters(folder)
    recordings = edited.recordings
    labels = edited.labels
    return Found(
        len(recordings),
        _n_silent(recordings, edited.segments),
        sum(1 for r in recordings if not r.sample_rate),
        len(labels),
        int((labels == UNKNOWN).sum()),
        len(np.unique(labels[labels >= 0])),
    )


def as_dict(found: Found, folder: Path) -> dict[str, object]:
    """Return the numbers for programs."""
    return {
        "folder": os.fspath(folder),
        "recordings": found.recordings,
        "recordings_without_sounds": found.silent,
        "recordings_set_aside": found.set_aside,
        "segments": found.segments,
        "unknown": found.unknown,
        "clusters": found.clusters,
    }

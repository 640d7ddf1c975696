"""Training of a detector network, from datasets to a verified bundle."""

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from neurovocal.engine.contracts.bundle import Bundle, load_bundle
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.types import Float32
from neurovocal.models.data.soundness import Sound, read_recordings, silent_note
from neurovocal.models.detection.datasets import (
    CallRecording,
    DetectorData,
    all_sources,
    read_datasets,
    read_part,
)
from neurovocal.models.detection.export import TrainedDetector, write_detector_bundle
from neurovocal.models.detection.judged import JudgedScene, corrections_of, measure
from neurovocal.models.detection.network import DetectorNetwork
from neurovocal.models.detection.pools import SYNTHETIC, SceneFiles, Watch
from neurovocal.models.detection.recipe import DetectorRecipe
from neurovocal.models.detection.recorded import mark_unjudged
from neurovocal.models.detection.scenes import draw_scene, scene_of
from neurovocal.models.detection.training import DetectorTask
from neurovocal.models.toolkit.loop import (
    Budget,
    History,
    StopFlag,
    TrainingInterrupted,
    fit,
)
from neurovocal.models.toolkit.problems import Problems
from neurovocal.models.toolkit.progress import Reporter
from neurovocal.models.training.workspace import (
    TrainingJob,
    install_bundle,
    mark_work_folder,
    out_problems,
    with_real_out,
    work_folder,
)
from neurovocal.plugins.detectors.band_excess import FloorOptions, framing

_VALID_SCENES = 40
_NETWORK_SHARE = 0.8  # of a time budget
_VALID_SEED = 2 * 10**6


def train_detector(
    folders: Sequence[Path],
    job: TrainingJob,
    recipe: DetectorRecipe,
    reporter: Reporter,
    stop: StopFlag,
    scenes: Path | None = None,
) -> Bundle:
    """Draw scenes, train, export and verify a detector, and move it to ``--out``.

    Parameters
    ----------
    folders : sequence of Path
        Datasets; `job.dataset` is the first of them.
    job : TrainingJob
        Arguments of the training.
    recipe : DetectorRecipe
        Recipe.
    reporter : Reporter
        Receives messages and progress.
    stop : StopFlag
        Request to stop; scenes and checkpoints are kept.
    scenes : Path, optional
        Folder in which scenes are kept for other trainings; by default they are removed
        with the work folder.

    Raises
    ------
    ConfigError
        The arguments, the recipe or the data are invalid.
    TrainingInterrupted
        `stop` was raised; the same call resumes the training.
    BundleError
        torch and ONNX Runtime disagree on the exported network.
    """
    started_s = time.monotonic()
    job = with_real_out(job)
    problems = Problems()
    for folder in folders:
        problems.add(out_problems(replace(job, dataset=folder)))
    problems.of(lambda: check_sizes(recipe))
    data = problems.of(lambda: read_datasets(folders, recipe))
    problems.refuse()
    assert data is not None
    torch.set_num_threads(recipe.threads)
    with work_folder(job):
        _Training(job, recipe, data, reporter, stop, scenes).run()
        install_bundle(job)
    bundle = load_bundle(job.out)
    minutes = (time.monotonic() - started_s) / 60
    reporter.print_message(f"{job.out}: done in {minutes:.1f} min")
    return bundle


@dataclass(frozen=True, slots=True, eq=False)
class _Training:
    """Stages of a training."""

    job: TrainingJob
    recipe: DetectorRecipe
    data: DetectorData
    reporter: Reporter
    stop: StopFlag
    scenes: Path | None

    def run(self) -> None:
        """Write the finished bundle to the work folder."""
        recipe, data = self.recipe, self.data
        with self._stage("reading") as watch:
            sounds = read_recordings(list(all_sources(data)), watch)
        mark_work_folder(self.job, _fingerprint(recipe, data, sounds))
        for note in [*data.notes, *_silent_notes(data, sounds)]:
            self.reporter.print_message(f"note: {note}")
        backgrounds = [
            read_part(each, 0.0, each.duration_s)
            for each in data.backgrounds
            if not sounds[each.file].is_silent
        ]
        files = SceneFiles(
            self.scenes or self.job.work_path, recipe, sounds, backgrounds
        )
        with self._stage("scenes") as watch:
            pools = files.pools(data, watch)
        valid = self._valid(backgrounds)
        task = DetectorTask(
            recipe,
            pools,
            {name: [each.scene for each in judged] for name, judged in valid.items()},
        )
        history = self._fit(task)
        self._export(task.module, history, valid)

    def _valid(self, backgrounds: Sequence[Float32]) -> dict[str, list[JudgedScene]]:
        """Return what chooses the weights, by dataset."""
        with self._stage("validation") as watch:
            scenes = [
                draw_scene(
                    self._rng(_VALID_SEED, number), self.recipe.scenes.rows, backgrounds
                )
                for number in range(_VALID_SCENES)
            ]
            judged = {SYNTHETIC: [JudgedScene(scene) for scene in scenes]}
            for index, of in enumerate(self.data.sets):
                if of.valid:
                    judged[of.name] = [_judged(recording) for recording in of.valid]
                watch((index + 1) / len(self.data.sets))
        return judged

    def _fit(self, task: DetectorTask) -> History:
        minutes = self.job.minutes
        budget = Budget(None if minutes is None else minutes * 60 * _NETWORK_SHARE)
        path = self.job.work_path / "detector_network.pt"
        with self.reporter.stage(task.name) as on_progress:

            def report(progress: float, history: History, loss: float) -> None:
                note = f"loss {loss:.3f}"
                if history.rows:
                    note += f", validation {history.rows[-1]['score']:.3f}"
                on_progress(min(1.0, progress), note)

            return fit(task, path, budget, self.stop, self.recipe.checkpoint_s, report)

    def _export(
        self,
        model: DetectorNetwork,
        history: History,
        valid: dict[str, list[JudgedScene]],
    ) -> None:
        """Measure what the network finds and write the bundle."""
        ahead = self.recipe.network.look_ahead
        with self._stage("figures") as watch:
            corrections = {}
            for number, (name, judged) in enumerate(valid.items()):
                corrections[name] = [
                    corrections_of(model, each.scene, ahead) for each in judged
                ]
                watch((number + 1) / len(valid))
            figures = measure(valid, corrections)
        folder = self.job.work_path / "bundle"
        shutil.rmtree(folder, ignore_errors=True)
        golden = max(
            (each.scene for judged in valid.values() for each in judged),
            key=lambda scene: int((scene.target == 1).sum()),
        )
        trained = TrainedDetector(model, golden, figures, history)
        write_detector_bundle(folder, trained, self.data, self.recipe, self.job)

    def _rng(self, *numbers: int) -> np.random.Generator:
        return np.random.default_rng([self.recipe.seed, *numbers])

    @contextmanager
    def _stage(self, name: str) -> Iterator[Watch]:
        """Show the progress of a stage, and stop in it."""
        with self.reporter.stage(name) as on_progress:

            def watch(share: float) -> None:
                if self.stop.raised:
                    raise TrainingInterrupted(
                        f"stopped in the stage '{name}': run the same command again to "
                        "go on"
                    )
                on_progress(share, "")

            yield watch


def _silent_notes(data: DetectorData, sounds: Mapping[str, Sound]) -> Iterator[str]:
    """Yield a sentence on silent recordings of a dataset; refuse one without sound."""
    for each in data.sets:
        files = [recording.source.file for recording in (*each.train, *each.valid)]
        own = {file: sounds[file] for file in files}
        yield from silent_note(own, f"recordings of dataset '{each.name}'")


def _judged(recording: CallRecording) -> JudgedScene:
    """Return a whole recording at its own rate, with its calls."""
    source = recording.source
    rate = source.sample_rate
    spans = tuple((a * rate, b * rate) for a, b in recording.spans)
    scene = scene_of(read_part(source, 0.0, source.duration_s), rate, spans)
    if recording.judged is not None:
        judged = [(a * rate, b * rate) for a, b in recording.judged]
        frame_length, hop, _ = framing(FloorOptions(), rate)
        mark_unjudged(scene.target, judged, frame_length, hop)
    return JudgedScene(scene, spans)


def _fingerprint(
    recipe: DetectorRecipe, data: DetectorData, sounds: dict[str, Sound]
) -> str:
    """Return a digest of the recipe and of all that the network is trained on."""
    settings = recipe.model_dump(mode="json", exclude={"card", "checkpoint_s"})
    recordings = [
        [of.name, part, each.source.file, sounds[each.source.file].digest, each.spans]
        for of in data.sets
        for part, recordings in (("train", of.train), ("valid", of.valid))
        for each in recordings
    ]
    backgrounds = [[each.file, sounds[each.file].digest] for each in data.backgrounds]
    content = json.dumps([settings, recordings, backgrounds], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def check_sizes(recipe: DetectorRecipe) -> None:
    """Raise ConfigError if scenes are shorter than a training sequence."""
    network, rows = recipe.network, recipe.scenes.rows
    if rows < network.sequence_length + network.look_ahead:
        raise ConfigError(
            f"scenes.rows ({rows}) is less than network.sequence_length "
            f"({network.sequence_length}) and look_ahead ({network.look_ahead}): raise "
            "it"
        )

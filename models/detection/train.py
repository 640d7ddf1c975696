"""Training of a detector network, from datasets to a verified bundle."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from neurovocal.engine.contracts.bundle import Bundle, load_bundle
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.types import Float32
from neurovocal.models.data.soundness import Sound, read_recordings
from neurovocal.models.detection.datasets import (
    CallRecording,
    DetectorData,
    all_sources,
    read_datasets,
    read_part,
)
from neurovocal.models.detection.export import TrainedDetector, write_detector_bundle
from neurovocal.models.detection.network import DetectorNetwork
from neurovocal.models.detection.recipe import DetectorRecipe
from neurovocal.models.detection.recorded import draw_recorded_scene, mark_unjudged
from neurovocal.models.detection.scenes import (
    Scene,
    draw_scene,
    excess_of,
    targets_of,
)
from neurovocal.models.detection.thresholds import (
    JudgedScene,
    choose_rules,
    measure,
    runs_of,
    scores_of,
)
from neurovocal.models.detection.training import DetectorTask, ScenePool
from neurovocal.models.toolkit.files import write_npz
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
    SCENES,
    TrainingJob,
    install_bundle,
    mark_work_folder,
    out_problems,
    with_real_out,
    work_folder,
)
from neurovocal.plugins.detectors.band_excess import FloorOptions, framing
from neurovocal.plugins.storage.npz import read_npz

SYNTHETIC = "synthetic"
_VALID_SCENES = 40
_SCENES_AT_ONCE = 50  # of a file
_NETWORK_SHARE = 0.8  # of a time budget
_RECORDED_SEED, _VALID_SEED = 10**6, 2 * 10**6

Watch = Callable[[float], None]


def train_detector(
    folders: Sequence[Path],
    job: TrainingJob,
    recipe: DetectorRecipe,
    reporter: Reporter,
    stop: StopFlag,
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
        _Training(job, recipe, data, reporter, stop).run()
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

    def run(self) -> None:
        """Write the finished bundle to the work folder."""
        recipe, data = self.recipe, self.data
        with self._stage("reading") as watch:
            sounds = read_recordings(list(all_sources(data)), watch)
        mark_work_folder(self.job, _fingerprint(recipe, data, sounds))
        for note in data.notes:
            self.reporter.print_message(f"note: {note}")
        backgrounds = [
            read_part(each, 0.0, each.duration_s)
            for each in data.backgrounds
            if not sounds[each.file].is_silent
        ]
        pools = self._pools(backgrounds)
        valid = self._valid(backgrounds)
        task = DetectorTask(
            recipe,
            pools,
            {name: [each.scene for each in judged] for name, judged in valid.items()},
        )
        history = self._fit(task)
        self._export(task.module, history, valid)

    def _pools(self, backgrounds: Sequence[Float32]) -> list[ScenePool]:
        """Draw the scenes of the training, or read those that were drawn before."""
        config, rows = self.recipe.scenes, self.recipe.scenes.rows
        n_sets = len(self.data.sets)
        recorded = config.share_recorded if n_sets and config.recorded else 0.0

        def synthetic(number: int) -> Scene:
            return draw_scene(self._rng(number), rows, backgrounds)

        with self._stage("scenes") as watch:
            drawn = self._drawn(SYNTHETIC, config.synthetic, synthetic, watch)
            pools = [ScenePool(*drawn, 1.0 - recorded)]
            each = -(-config.recorded // max(1, n_sets))
            for index, of in enumerate(self.data.sets if recorded else ()):
                recordings = of.train

                def from_set(
                    number: int,
                    recordings: Sequence[CallRecording] = recordings,
                    index: int = index,
                ) -> Scene:
                    rng = self._rng(_RECORDED_SEED + index, number)
                    chosen = recordings[int(rng.integers(len(recordings)))]
                    return draw_recorded_scene(rng, rows, chosen, backgrounds)

                drawn = self._drawn(of.name, each, from_set, watch)
                pools.append(ScenePool(*drawn, recorded / n_sets))
        return pools

    def _drawn(
        self, name: str, count: int, draw: Callable[[int], Scene], watch: Watch
    ) -> tuple[NDArray[np.float16], NDArray[np.int8]]:
        """Return scenes of one kind, kept in files of the work folder."""
        parts = []
        for first in range(0, count, _SCENES_AT_ONCE):
            path = self.job.work_path / f"{SCENES}{name}-{first:05d}.npz"
            if not path.is_file():
                scenes = []
                for number in range(first, min(first + _SCENES_AT_ONCE, count)):
                    scenes.append(draw(number))
                    watch((number + 1) / count)
                drawn = {
                    "excess": np.stack([scene.excess for scene in scenes]),
                    "target": np.stack([scene.target for scene in scenes]),
                }
                write_npz(path, drawn, compressed=False)
            arrays = read_npz(path, "scenes", "excess", "target")
            parts.append(
                (arrays["excess"].astype(np.float16), arrays["target"].astype(np.int8))
            )
        return (
            np.concatenate([excess for excess, _ in parts]),
            np.concatenate([target for _, target in parts]),
        )

    def _valid(self, backgrounds: Sequence[Float32]) -> dict[str, list[JudgedScene]]:
        """Return what chooses weights and thresholds, by dataset."""
        with self._stage("validation") as watch:
            scenes = [
                draw_scene(
                    self._rng(_VALID_SEED, number), self.recipe.scenes.rows, backgrounds
                )
                for number in range(_VALID_SCENES)
            ]
            judged = {
                SYNTHETIC: [JudgedScene(scene, runs_of(scene)) for scene in scenes]
            }
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
        """Choose the thresholds and write the bundle."""
        ahead = self.recipe.network.look_ahead
        with self._stage("thresholds") as watch:
            scores = {
                name: [scores_of(model, each.scene, ahead) for each in judged]
                for name, judged in valid.items()
            }
            rules = choose_rules(valid, scores, watch)
        figures = measure(valid, scores, rules)
        folder = self.job.work_path / "bundle"
        shutil.rmtree(folder, ignore_errors=True)
        golden = max(
            (each.scene for judged in valid.values() for each in judged),
            key=lambda scene: int((scene.target == 1).sum()),
        )
        trained = TrainedDetector(model, rules, golden, figures, history)
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


def _judged(recording: CallRecording) -> JudgedScene:
    """Return a whole recording at its own rate, with its calls in rows."""
    source = recording.source
    rate = source.sample_rate
    frame_length, hop, _ = framing(FloorOptions(), rate)
    excess = excess_of(read_part(source, 0.0, source.duration_s), rate)
    in_samples = [(a * rate, b * rate) for a, b in recording.spans]
    target = targets_of(excess, in_samples, frame_length, hop)
    if recording.judged is not None:
        judged = [(a * rate, b * rate) for a, b in recording.judged]
        mark_unjudged(target, judged, frame_length, hop)
    origin = (frame_length - hop) / 2
    spans = [((a - origin) / hop, (b - origin) / hop) for a, b in in_samples]
    return JudgedScene(Scene(excess.astype(np.float16), target), tuple(spans))


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

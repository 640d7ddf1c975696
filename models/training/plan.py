"""Training of the network that sings after a plan, added to a copy of a bundle."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from typing import Any

import torch

from neurovocal.engine.contracts.bundle import Bundle, load_bundle
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.lane.offline import build_front_end, frames_of
from neurovocal.models.data.datasets import AnnotatedRecording
from neurovocal.models.data.frames import LabelledFrames, read_samples
from neurovocal.models.data.targets import Units, targets_of
from neurovocal.models.evaluation.synthesis.planned import heard_units
from neurovocal.models.rnn_rbm.planned import planned_songs
from neurovocal.models.rnn_rbm.training import RnnRbmTask
from neurovocal.models.toolkit.files import write_npz
from neurovocal.models.toolkit.loop import Budget, History, StopFlag, fit
from neurovocal.models.toolkit.onnx_session import GraphExport
from neurovocal.models.toolkit.progress import ProgressCallback, Reporter
from neurovocal.models.toolkit.recipe import Phase, RnnRbmConfig
from neurovocal.models.training.export.bundle import write_manifest
from neurovocal.models.training.export.plan import TrainedPlan, write_plan
from neurovocal.models.training.workspace import (
    TrainingJob,
    install_bundle,
    mark_work_folder,
    out_problems,
    with_real_out,
    work_folder,
)
from neurovocal.plugins.models.rnn_rbm.plan.condition import n_condition
from neurovocal.plugins.storage.npz import read_npz

# Silence around song, so that pauses are learned, too.
_KEPT_S = 0.4
_CHECKPOINT_S = 15.0
_VALID_SHARE = 0.2
# Song that the network's units are counted in.
_HEARD_S = 40.0


def plan_recipe(bundle: Bundle) -> RnnRbmConfig:
    """Return the recipe of the network: small, since the plan remembers for it."""
    spec = bundle.manifest.rnn_rbm
    assert spec is not None
    return RnnRbmConfig(
        visible=spec.visible,
        gates="sigmoid",
        hidden_scalar=spec.n_hidden / spec.n_visible,
        recurrent_scalar=1.3,
        dropout=0.2,
        feedback_noise=1.5,
        sequence_length=96,
        residual_level=1.0,
        phases=[
            Phase(
                objective="deterministic",
                updates=500,
                learning_rate=2e-3,
                decay="cosine",
            ),
            Phase(
                objective="contrastive",
                updates=150,
                learning_rate=5e-4,
                learning_rate_w=1e-3,
                decay="cosine",
            ),
        ],
    )


def add_plan(
    job: TrainingJob,
    recordings: Sequence[AnnotatedRecording],
    seed: int,
    reporter: Reporter,
    stop: StopFlag,
    recipe: RnnRbmConfig | None = None,
) -> Bundle:
    """Train the network on annotated song, and write a copy of a bundle with it.

    Parameters
    ----------
    job : TrainingJob
        Arguments; its origin is the bundle that is copied.
    recordings : sequence of AnnotatedRecording
        Those that the bundle was tested on are left out.
    seed : int
        Seed of weights, batches and noise.
    reporter : Reporter
        Receives messages and progress.
    stop : StopFlag
        Request to stop; the checkpoint is kept.
    recipe : RnnRbmConfig, optional
        In place of `plan_recipe`.

    Raises
    ------
    ConfigError
        The bundle lacks a part, or the recordings have too little song.
    TrainingInterrupted
        `stop` was raised; the same call resumes the training.
    """
    job = with_real_out(job)
    assert job.origin is not None
    bundle = load_bundle(job.origin)
    manifest = bundle.manifest
    lacking = [
        part
        for part in ("classifier", "forecast", "rnn_rbm")
        if getattr(manifest, part) is None
    ]
    if lacking:
        raise ConfigError(
            f"bundle '{bundle.folder}' has no {' and no '.join(lacking)}: a plan needs "
            "all three; train a bundle with a recipe that has them"
        )
    if problems := list(out_problems(job)):
        raise ConfigError(problems)
    recipe = recipe or plan_recipe(bundle)
    train, valid = _split(bundle, recordings)
    with work_folder(job):
        mark_work_folder(job, _fingerprint(bundle, [*train, *valid], seed, recipe))
        with reporter.stage("frames") as on_progress:
            examples = _frames(bundle, [*train, *valid], on_progress)
        trained = _train(
            job,
            bundle,
            (examples[: len(train)], examples[len(train) :]),
            recipe,
            seed,
            reporter,
            stop,
        )
        _export(job, bundle, trained, seed, reporter)
        install_bundle(job)
    return load_bundle(job.out)


def _split(
    bundle: Bundle, recordings: Sequence[AnnotatedRecording]
) -> tuple[list[AnnotatedRecording], list[AnnotatedRecording]]:
    """Return training and validation recordings, as the bundle's training had them."""
    named: dict[str, list[str]] = bundle.manifest.training.get("recordings", {})
    left_out = set(named.get("test", []))
    known = [r for r in recordings if r.annotations and r.file not in left_out]
    valid = [r for r in known if r.file in named.get("valid", [])]
    if not valid and len(known) > 1:
        valid = known[-max(1, round(_VALID_SHARE * len(known))) :]
    chosen = {id(r) for r in valid}
    train = [r for r in known if id(r) not in chosen]
    if not train or not valid:
        raise ConfigError(
            f"{len(known)} annotated recordings besides those of the bundle's test are "
            "too few: a plan needs one to learn from and one to stop by"
        )
    return train, valid


def _fingerprint(
    bundle: Bundle,
    recordings: Sequence[AnnotatedRecording],
    seed: int,
    recipe: RnnRbmConfig,
) -> str:
    """Return a digest of what the training depends on."""
    segments = [
        [r.file, r.channel, r.start_s]
        + [[a.onset_s, a.offset_s, a.unit] for a in r.own_annotations]
        for r in recordings
    ]
    start = [bundle.manifest.files, seed, recipe.model_dump(mode="json")]
    content = json.dumps([*start, segments], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _frames(
    bundle: Bundle,
    recordings: Sequence[AnnotatedRecording],
    on_progress: ProgressCallback,
) -> list[LabelledFrames]:
    """Compute frames and segments with the bundle's front end and units."""
    front_end, spec = bundle.manifest.front_end, bundle.manifest.classifier
    assert spec is not None
    names = ["", *(unit for unit in spec.units if unit != spec.silence)]
    units = Units(names, {name: n for n, name in enumerate(names) if n})
    features = build_front_end(front_end, bundle)
    examples = []
    for number, recording in enumerate(recordings, start=1):
        frames = frames_of(features, read_samples(recording, front_end.sample_rate))
        target, spans = targets_of(
            recording,
            units,
            len(frames),
            front_end.sample_rate,
            front_end.hop_length,
            front_end.frame_length,
        )
        examples.append(LabelledFrames(recording, frames, target, spans))
        on_progress(number / len(recordings), "")
    return examples


def _train(
    job: TrainingJob,
    bundle: Bundle,
    examples: tuple[list[LabelledFrames], list[LabelledFrames]],
    recipe: RnnRbmConfig,
    seed: int,
    reporter: Reporter,
    stop: StopFlag,
) -> TrainedPlan:
    """Train the network; a checkpoint is kept in the work folder."""
    front_end = bundle.manifest.front_end
    spec, forecast = bundle.manifest.classifier, bundle.manifest.forecast
    assert spec is not None
    assert forecast is not None
    units = [unit for unit in spec.units if unit != spec.silence]
    per_s = front_end.sample_rate / front_end.hop_length
    train, valid = (
        planned_songs(part, len(units), round(_KEPT_S * per_s)) for part in examples
    )
    if not train or not valid:
        raise ConfigError("no recording has a segment of one of the bundle's units")
    torch.set_num_threads(1)
    task = RnnRbmTask(recipe, train, valid, seed, n_condition(len(units)))
    with reporter.stage("plan") as on_progress:

        def report(progress: float, history: History, loss: float) -> None:
            on_progress(min(1.0, progress), f"loss {loss:.3f}")

        fit(task, job.work_path / "plan.pt", Budget(), stop, _CHECKPOINT_S, report)
    return TrainedPlan(
        task.module,
        recipe,
        units,
        train,
        valid,
        examples[0],
        forecast.pause_ms / 1000 * per_s,
        per_s,
    )


def _export(
    job: TrainingJob,
    bundle: Bundle,
    trained: TrainedPlan,
    seed: int,
    reporter: Reporter,
) -> None:
    """Write the copy of the bundle to the work folder, and count the units heard."""
    folder = job.work_path / "bundle"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in bundle.manifest.files:
        if (bundle.folder / name).is_file():
            shutil.copyfile(bundle.folder / name, folder / name)
    golden = bundle.manifest.golden
    export = GraphExport(folder, dict(read_npz(bundle.path(golden), "golden vectors")))
    plan = write_plan(export, trained, trained.config.residual_level, seed)
    write_npz(folder / golden, export.golden)
    training: dict[str, Any] = dict(bundle.manifest.training)
    training["plan"] = {"command": job.command, "seed": seed}
    parity = {k: float(f"{v:.2g}") for k, v in export.parity["plan"].items()}
    training["parity"] = {**training.get("parity", {}), "plan": parity}
    made = bundle.manifest.model_copy(update={"plan": plan, "training": training})
    written = write_manifest(folder, made)
    with reporter.stage("test") as on_progress:
        heard = heard_units(written, _HEARD_S, seed, lambda s: on_progress(s, ""))
    figures = {**made.figures, "plan": heard}
    write_manifest(folder, made.model_copy(update={"figures": figures}))
    load_bundle(folder)

"""Song after a plan: training, export, `generate --units`, mode and command."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from bundles.tone_dataset import make_tone_dataset

from neurovocal.engine.contracts.bundle import Bundle, load_bundle
from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import BundleError, ConfigError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import StreamInfo, Synthesis
from neurovocal.models.data.datasets import read_dataset
from neurovocal.models.generation.command import generate
from neurovocal.models.generation.generator import PlannedGenerator
from neurovocal.models.rnn_rbm.planned import annotated_items
from neurovocal.models.toolkit.loop import StopFlag
from neurovocal.models.toolkit.progress import Reporter
from neurovocal.models.toolkit.recipe import RnnRbmConfig, TrainConfig
from neurovocal.models.training.plan import add_plan, plan_recipe
from neurovocal.models.training.train import train_bundle
from neurovocal.models.training.workspace import TrainingJob
from neurovocal.plugins.models.rnn_rbm.model import RnnRbm
from neurovocal.plugins.models.rnn_rbm.options import RnnRbmOptions, SayOptions
from neurovocal.plugins.models.rnn_rbm.plan.condition import (
    SILENCE,
    PlanItem,
    is_silence,
    n_condition,
    plan_rows,
)
from neurovocal.plugins.models.rnn_rbm.plan.sampler import Planner, no_plan
from neurovocal.plugins.models.rnn_rbm.plan.tables import draw_length

RECIPE: dict[str, Any] = {
    "front_end": {"options": {"frame_length": 128, "hop_length": 64, "scale": "log"}},
    # What the plan is added to need not be good.
    "detector": {"fit": False},
    "classifier": {"n_hidden": 8, "updates": 10, "sequence_length": 120},
    "rnn_rbm": {
        "hidden_scalar": 0.2,
        "recurrent_scalar": 0.2,
        "residual_components": 1,
        "phases": [
            {"objective": "deterministic", "updates": 5, "learning_rate": 0.01},
        ],
        "validate_every": 5,
    },
    "forecast": {"updates": 20},
}
SMALL = {
    "hidden_scalar": 0.5,
    "recurrent_scalar": 0.6,
    "residual_components": 1,
    "feedback_noise": 0.5,
    "phases": [
        {"objective": "deterministic", "updates": 80, "learning_rate": 0.01},
        {"objective": "contrastive", "updates": 5, "learning_rate": 0.001},
    ],
    "validate_every": 40,
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tone_dataset(tmp_path_factory.mktemp("tones"))


@pytest.fixture(scope="module")
def plain(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("plain") / "tones"
    recipe = TrainConfig.model_validate(RECIPE)
    return train_bundle(TrainingJob(dataset, out), recipe, Reporter(), StopFlag())


@pytest.fixture(scope="module")
def bundle(
    plain: Bundle, dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    out = tmp_path_factory.mktemp("planned") / "tones"
    job = TrainingJob(dataset, out, origin=str(plain.folder), command="neurovocal plan")
    small = RnnRbmConfig.model_validate(SMALL)
    recordings = read_dataset(dataset).recordings
    return add_plan(job, recordings, 0, Reporter(), StopFlag(), small)


def model_of(bundle: Bundle, **options: Any) -> RnnRbm:
    rate = bundle.manifest.front_end.sample_rate
    info = StreamInfo("test", rate)
    context = BuildContext(clock=ManualClock(), run="test", info=info, bundle=bundle)
    return RnnRbm(RnnRbmOptions(**options), context)


def frames_until(model: RnnRbm, frame: int) -> np.ndarray:
    """Return all frames that a model draws up to a position, drawn in steps."""
    parts = []
    for stop in range(8, frame + 1, 8):
        for event in model.advance(stop * 64):
            if isinstance(event, Synthesis):
                parts.append(event.values)
    return np.concatenate(parts) if parts else np.zeros((0, 65), np.float32)


def test_rows_tell_unit_phase_and_what_follows() -> None:
    rows = plan_rows([PlanItem(SILENCE, 3), PlanItem(2, 4), PlanItem(SILENCE, 80)], 2)
    assert rows.shape == (87, n_condition(2))
    assert is_silence(rows).tolist() == [True] * 3 + [False] * 4 + [True] * 80
    following = rows[:, 15:18].argmax(axis=1)
    assert following.tolist() == [2] * 3 + [SILENCE] * 84
    unit = rows[3:7, 10:15]  # hats of the phase within unit 2
    np.testing.assert_allclose(unit.sum(axis=1), 1)
    np.testing.assert_allclose(
        unit @ [0, 0.25, 0.5, 0.75, 1], [0.125, 0.375, 0.625, 0.875]
    )
    middle = rows[7 + 30 : 7 + 50]  # far from both edges, a pause is the same
    assert (middle == middle[0]).all()


def test_lengths_are_drawn_from_the_quantiles() -> None:
    quantiles = np.array([10, 20, 40], np.float32)
    lengths = [draw_length(quantiles, chance) for chance in (0, 0.25, 0.5, 0.75)]
    assert lengths == [10, 15, 20, 30]
    assert draw_length(np.zeros(3, np.float32), 0.5) == 1


def test_the_plan_is_added_to_a_copy(bundle: Bundle, plain: Bundle) -> None:
    spec = bundle.manifest.plan
    assert spec is not None
    assert spec.units == ["a", "b", "c"]
    assert plain.manifest.plan is None
    for name in ("classifier.onnx", "rnn_rbm.onnx", "forecast.onnx"):
        assert bundle.path(name).read_bytes() == plain.path(name).read_bytes()
    assert bundle.manifest.figures["plan"]["units"] > 10
    assert bundle.manifest.training["parity"]["plan"]["mean"] < 1e-4


def test_commanded_units_are_sung_in_order(bundle: Bundle) -> None:
    generator = PlannedGenerator(bundle, "c a a, b", feedback="mean")
    frames = np.concatenate(list(generator.generate(None)))
    assert [each.unit for each in generator.sung] == ["c", "a", "a", "b"]
    c, a, again, b = (frames[u.first : u.stop].mean(axis=0) for u in generator.sung)
    silent = frames[:5].mean()
    assert min(c.mean(), a.mean(), b.mean()) > 1.2 * silent
    alike = np.corrcoef(a, again)[0, 1]
    assert alike > max(np.corrcoef(a, b)[0, 1], np.corrcoef(a, c)[0, 1])


def test_units_that_the_bundle_has_not_are_told(bundle: Bundle, plain: Bundle) -> None:
    with pytest.raises(ConfigError, match="'d': the bundle has a b c"):
        PlannedGenerator(bundle, "a d")
    with pytest.raises(ConfigError, match="name at least one"):
        PlannedGenerator(bundle, " ")
    with pytest.raises(BundleError, match="no plan to sing after"):
        PlannedGenerator(plain, "a")


def test_generate_lists_units_with_their_times(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "song.wav"
    generate(str(bundle.folder), units="a b", out=out, as_json=True)
    result = json.loads(capsys.readouterr().out)
    assert [unit["unit"] for unit in result["units"]] == ["a", "b"]
    samples, rate = soundfile.read(out)
    for unit in result["units"]:
        part = samples[round(unit["onset_s"] * rate) : round(unit["offset_s"] * rate)]
        assert len(part) > 0
    assert result["units"][-1]["offset_s"] < len(samples) / rate
    generate(
        str(bundle.folder), units="a b", planned=True, seconds=2.0, out=out,
        overwrite=True, as_json=True,
    )  # fmt: skip
    longer = json.loads(capsys.readouterr().out)
    assert [unit["unit"] for unit in longer["units"]][:2] == ["a", "b"]
    assert len(longer["units"]) > 2
    with pytest.raises(ConfigError, match="add --planned"):
        generate(str(bundle.folder), units="a", seconds=1.0, out=tmp_path / "b.wav")
    with pytest.raises(ConfigError, match="--prime: a planned song"):
        generate(str(bundle.folder), planned=True, prime=out, out=tmp_path / "b.wav")


def test_planned_song_does_not_depend_on_steps(bundle: Bundle) -> None:
    one = frames_until(model_of(bundle, synthesis="planned", seed=3), 400)
    model = model_of(bundle, synthesis="planned", seed=3)
    parts = []
    for stop in range(2, 401, 2):
        for event in model.advance(stop * 64):
            assert isinstance(event, Synthesis)
            assert event.mode == "planned"
            parts.append(event.values)
    np.testing.assert_array_equal(np.concatenate(parts), one)
    other = frames_until(model_of(bundle, synthesis="planned", seed=4), 400)
    assert not np.array_equal(one, other)


def test_say_sings_once_and_ends(bundle: Bundle) -> None:
    model = model_of(bundle)
    model.advance(100 * 64)
    model.apply("say", model.prepare("say", SayOptions(units="b a")))
    events = [e for s in range(108, 600, 8) for e in model.advance(s * 64)]
    said = [e for e in events if isinstance(e, Synthesis)]
    assert said[0].first == 100
    assert {e.mode for e in said} == {"say"}
    assert sum(len(e.values) for e in said) < 400
    assert not model.advance(700 * 64)
    with pytest.raises(ConfigError, match="'z': the bundle has a b c"):
        model.prepare("say", SayOptions(units="z"))


def test_say_goes_before_drawn_units(bundle: Bundle) -> None:
    planner = Planner(bundle)
    plan = planner.song_plan()
    plan.start((), free=True, seed=(0,))
    for _ in range(60):
        plan.row()
    now = plan.unit
    plan.say((3, 3, 2))
    order = [now]
    for _ in range(400):
        plan.row()
        if plan.unit != order[-1]:
            order.append(plan.unit)
    assert [unit for unit in order if unit != SILENCE][(now != SILENCE) :][:3] == [
        3,
        3,
        2,
    ]


def test_a_bundle_without_a_plan_is_told(plain: Bundle) -> None:
    with pytest.raises(BundleError, match="`neurovocal plan` adds one"):
        model_of(plain, synthesis="planned")
    model = model_of(plain)
    with pytest.raises(ConfigError, match="has no plan"):
        model.prepare("say", SayOptions(units="a"))


def test_a_bundle_that_cannot_have_a_plan_is_not_sent_to_make_one() -> None:
    finch = load_bundle("bengalese-finch")
    unplanned = finch.manifest.model_copy(update={"plan": None})
    assert "`neurovocal plan` adds" in no_plan(replace(finch, manifest=unplanned))
    refused = no_plan(load_bundle("spoken-digits"))
    assert "no forecast and no RNN-RBM, which a plan needs" in refused
    assert "neurovocal plan" not in refused


def test_overlapping_segments_make_no_empty_items(dataset: Path) -> None:
    from neurovocal.models.data.frames import LabelledFrames
    from neurovocal.models.data.targets import FrameSpan

    spans = [FrameSpan(2, 8, 1), FrameSpan(5, 7, 2), FrameSpan(6, 10, 2)]
    recording = read_dataset(dataset).recordings[0]
    frames = np.zeros((12, 3), np.float32)
    example = LabelledFrames(recording, frames, np.zeros(12, np.int64), spans)
    items = annotated_items(example)
    assert items == [PlanItem(0, 2), PlanItem(1, 6), PlanItem(2, 2), PlanItem(0, 2)]
    assert sum(item.n_frames for item in items) == 12


def test_the_recipe_has_the_bundles_units(plain: Bundle) -> None:
    recipe = plan_recipe(plain)
    assert plain.manifest.rnn_rbm is not None
    assert recipe.visible == plain.manifest.rnn_rbm.visible

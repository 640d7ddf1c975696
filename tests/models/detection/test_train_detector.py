"""Training of a detector network, from datasets to a bundle that the engine runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from typer.testing import CliRunner

from neurovocal.engine.cli.app import build_app
from neurovocal.engine.cli.commands.bundle import summary, verify
from neurovocal.engine.contracts.bundle import Bundle, load_bundle
from neurovocal.engine.contracts.errors import BundleError, ConfigError
from neurovocal.models.detection.recipe import DetectorRecipe, load_recipe
from neurovocal.models.detection.train import train_detector
from neurovocal.models.toolkit.loop import StopFlag, TrainingInterrupted
from neurovocal.models.toolkit.progress import Reporter
from neurovocal.models.training.workspace import TrainingJob

RECIPE: dict[str, Any] = {
    "scenes": {"synthetic": 6, "recorded": 6, "rows": 150},
    "network": {
        "n_hidden": 6,
        "updates": 8,
        "batch_size": 4,
        "sequence_length": 60,
        "validate_every": 4,
    },
}


class StopAfter(StopFlag):
    """Is raised when it has been looked at so many times."""

    def __init__(self, looks: int) -> None:
        self._left = looks

    @property
    def raised(self) -> bool:
        self._left -= 1
        return self._left < 0

    @raised.setter
    def raised(self, value: bool) -> None: ...


def make_calls(folder: Path, sample_rate: int, seconds: float) -> Path:
    """Write three recordings with a tone every 0.2 s, and a README with a licence."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = ["file,onset_s,offset_s,label"]
    for number in range(3):
        samples = 0.003 * rng.standard_normal(round(seconds * sample_rate))
        length = round(0.06 * sample_rate)
        tone = 0.2 * np.sin(2 * np.pi * 0.2 * np.arange(length)) * np.hanning(length)
        for onset_s in np.arange(0.3, seconds - 0.2, 0.2):
            first = round(onset_s * sample_rate)
            samples[first : first + length] += tone
            offset_s = (first + length) / sample_rate
            rows.append(f"{number}.wav,{first / sample_rate:.6f},{offset_s:.6f},call")
        soundfile.write(folder / f"{number}.wav", samples, sample_rate)
    (folder / "annotations.csv").write_text("\n".join(rows) + "\n")
    readme = "# Calls\n\nLicence: CC BY 4.0\nAttribution: Somebody\n"
    (folder / "README.md").write_text(readme)
    return folder


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("datasets")
    rain = root / "rain"
    rain.mkdir()
    noise = 0.1 * np.random.default_rng(1).standard_normal(8000)
    soundfile.write(rain / "rain.wav", noise, 44_100)
    birds = make_calls(root / "birds", 16_000, 2.0)
    return [birds, make_calls(root / "mice", 200_000, 0.8), rain]


def trained(
    folders: list[Path], out: Path, stop: StopFlag | None = None, **changes: Any
) -> Bundle:
    recipe = DetectorRecipe.model_validate({**RECIPE, **changes})
    job = TrainingJob(folders[0], out, command="neurovocal train --detector")
    return train_detector(folders, job, recipe, Reporter(), stop or StopFlag())


@pytest.fixture(scope="module")
def bundle(datasets: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return trained(datasets, tmp_path_factory.mktemp("out") / "detector")


def test_the_bundle_is_a_verified_detector_alone(bundle: Bundle) -> None:
    assert verify(bundle) == ["detector network: golden outputs reproduced"]
    shown = summary(bundle.manifest)
    assert shown["models"] == ["detector_network"]
    assert "front_end" not in shown
    parity = bundle.manifest.training["parity"]
    assert max(parity.values()) < 1e-5
    with pytest.raises(BundleError, match="is a detector alone"):
        _ = bundle.manifest.front_end


def test_the_card_says_what_went_in(bundle: Bundle) -> None:
    assert bundle.manifest.licence == "CC BY 4.0; unknown"
    page = (bundle.folder / "README.md").read_text(encoding="utf-8")
    assert "| birds | CC BY 4.0 | Somebody |" in page
    assert "| rain | unknown |  |" in page
    recordings = bundle.manifest.training["recordings"]
    assert set(recordings) == {"birds", "mice"}
    for parts in recordings.values():
        assert len(parts["train"]) == 2
        assert len(parts["valid"]) == 1
        assert not set(parts["train"]) & set(parts["valid"])


def test_the_bundle_detects_from_the_command_line(
    bundle: Bundle, datasets: list[Path], tmp_path: Path
) -> None:
    config, recording = tmp_path / "c.yaml", str(datasets[0] / "0.wav")
    options = {"bundle": str(bundle.folder), "on": 0.02, "off": 0.01}
    content = {
        "version": 1,
        "source": {"plugin": "file", "options": {"path": recording}},
        "detector": {"plugin": "network", "options": options},
        "sinks": [{"plugin": "jsonl", "options": {"path": "-"}}],
    }
    config.write_text(yaml.safe_dump(content))
    arguments = ["detect", recording, "--config", str(config)]
    result = CliRunner().invoke(build_app(), arguments)
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) > 1


@pytest.mark.parametrize("looks", [12, 30])
def test_a_stopped_training_resumes_to_the_same_weights(
    bundle: Bundle, datasets: list[Path], tmp_path: Path, looks: int
) -> None:
    out = tmp_path / "detector"
    with pytest.raises(TrainingInterrupted, match="again to go on"):
        trained(datasets, out, StopAfter(looks))
    resumed = trained(datasets, out)
    expected, found = (
        (each.folder / "detector.onnx").read_bytes() for each in (bundle, resumed)
    )
    assert found == expected
    assert not out.with_name("detector.partial").exists()


def test_another_recipe_does_not_resume(datasets: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "detector"
    with pytest.raises(TrainingInterrupted):
        trained(datasets, out, StopAfter(20))
    with pytest.raises(ConfigError, match="another recipe or other data"):
        trained(datasets, out, seed=1)


def test_all_mistakes_are_told_at_once(datasets: list[Path], tmp_path: Path) -> None:
    broken = make_calls(tmp_path / "broken", 8000, 1.0)
    (broken / "2.wav").unlink()
    with pytest.raises(ConfigError) as caught:
        trained([*datasets, broken, tmp_path / "absent", datasets[0]], tmp_path / "out")
    text = "\n".join(caught.value.problems)
    assert "'birds' is named twice" in text
    assert "absent' does not exist" in text
    assert "2.wav" in text
    assert not (tmp_path / "out.partial").exists()


def test_recordings_that_no_row_chooses_are_told(
    datasets: list[Path], tmp_path: Path
) -> None:
    use = {"rain": {"use": "background", "only": {"label": ["wind"]}}}
    with pytest.raises(ConfigError, match=r"has no recording with .*wind"):
        trained(datasets, tmp_path / "out", datasets=use)


def test_scenes_shorter_than_a_sequence_are_refused(
    datasets: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"scenes.rows \(64\) is less than"):
        trained(datasets, tmp_path / "out", scenes={"rows": 64}, network={})


def test_one_dataset_without_calls_trains_on_synthetic_ones(
    datasets: list[Path], tmp_path: Path
) -> None:
    bundle = trained(datasets[2:], tmp_path / "out")
    assert set(bundle.manifest.figures) == {"detector, synthetic"}


def test_an_existing_bundle_is_kept(bundle: Bundle, datasets: list[Path]) -> None:
    with pytest.raises(ConfigError, match="already is a bundle"):
        trained(datasets, bundle.folder)
    assert load_bundle(bundle.folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--detector", "--from", "zebra-finch"], "--from: not with --detector"),
        (["--detector", "--tier", "x", "--channels", "1"], "--tier and --channels"),
        (["second"], "2 datasets are given"),
    ],
)
def test_arguments_that_do_not_fit_are_told(
    datasets: list[Path], tmp_path: Path, arguments: list[str], message: str
) -> None:
    command = ["train", str(datasets[0]), "--out", str(tmp_path / "o"), *arguments]
    result = CliRunner().invoke(build_app(), command)
    assert result.exit_code != 0
    assert message in (str(result.exception) + result.output)


def test_the_recipe_that_ships_is_valid() -> None:
    path = Path(__file__).resolve().parents[3] / "configs" / "train-detector.yaml"
    recipe = load_recipe(path)
    assert recipe.datasets["env_sounds"].use == "background"

"""What commands tell unasked: tables that stay empty, channels that are left out."""

import numpy as np
import pytest
import soundfile
import yaml
from bundles.tiny_bundle import make_tiny_bundle

from neurovocal.engine.cli import main


@pytest.fixture
def neurovocal(capsys):
    """Run a command in this process; return exit code, stdout and stderr."""

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([*arguments])
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return run


def test_bench_tells_that_it_measures_one_of_several_channels(neurovocal, tmp_path):
    config = tmp_path / "c.yaml"
    soundfile.write(tmp_path / "a.wav", np.zeros((8000, 2)), 8000)
    options = {"path": str(tmp_path / "a.wav"), "channels": [1, 2]}
    source = {"plugin": "file", "options": options}
    config.write_text(
        yaml.dump({"version": 1, "source": source, "sinks": [{"plugin": "jsonl"}]})
    )
    code, _, told = neurovocal(
        *("bench", "--config", str(config), "--seconds", "1"),
        *("--live-seconds", "0", "--json"),
    )
    assert code == 0
    assert "one channel of lane 'neurovocal' is measured, and it has 2" in told


@pytest.mark.parametrize("models", [[], ["rnn_rbm"]])
@pytest.mark.parametrize("content", ["labels", "segments"])
def test_a_table_of_labels_without_a_model_that_labels_is_told(
    neurovocal, tmp_path, content, models
):
    config = tmp_path / "c.yaml"
    table = {"path": str(tmp_path / "t.csv"), "content": content}
    source = {
        "plugin": "synthetic",
        "options": {"duration_s": 2, "sample_rate": 32000},
    }
    plan = {
        "version": 1,
        "source": source,
        "sinks": [{"plugin": "table", "options": table}],
    }
    if models:
        plan["bundle"] = str(make_tiny_bundle(tmp_path / "tiny"))
        plan["models"] = [{"plugin": name} for name in models]
    config.write_text(yaml.dump(plan))
    note = "note: sink 'table' writes labels, and no model gives any: it stays empty"
    checked = neurovocal("check", str(config))
    ran = neurovocal("run", str(config), "--plain")
    assert (checked[0], ran[0]) == (0, 0)
    assert (note in checked[1]) == (note in ran[2]) == (content == "labels")
    assert " segment " in ran[1]  # lines, where no label tells of the segments


@pytest.mark.parametrize(
    ("models", "tile", "note"),
    [
        ([], 1, "profile 'fast' hastens onsets alone, no model publishes labels"),
        (["classifier"], 8, "profile 'fast' with tile 8: labels wait until 8 frames"),
        (["classifier"], 1, None),
        (
            [{"plugin": "classifier", "options": {"sure_posterior": None}}],
            1,
            "undone by the option 'sure_posterior' of model 'classifier': leave it out",
        ),
    ],
)
def test_what_keeps_the_profile_fast_from_being_fast_is_told(
    neurovocal, tmp_path, models, tile, note
):
    config = tmp_path / "c.yaml"
    plan = {
        "version": 1,
        "tile": tile,
        "profile": "fast",
        "bundle": str(make_tiny_bundle(tmp_path / "tiny")),
        "source": {
            "plugin": "synthetic",
            "options": {"duration_s": 1, "sample_rate": 32000},
        },
        "models": [m if isinstance(m, dict) else {"plugin": m} for m in models],
        "sinks": [{"plugin": "jsonl"}],
    }
    config.write_text(yaml.dump(plan))
    code, told, err = neurovocal("check", str(config))
    assert code == 0, err
    assert [note in line for line in told.splitlines() if "note:" in line] == (
        [] if note is None else [True]
    )


def test_init_writes_that_a_microphone_is_waited_for(neurovocal, tmp_path):
    neurovocal(
        "init", str(tmp_path / "mine.yaml"), "--yes"
    )  # where there is one or not
    written = yaml.safe_load((tmp_path / "mine.yaml").read_text())
    assert written["source"]["plugin"] == "microphone"
    assert written["source"]["on_error"] == "restart"

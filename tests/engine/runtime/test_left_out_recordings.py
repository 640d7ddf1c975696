"""Recordings that cannot be processed are left out by name; the others are not."""

import json

import numpy as np
import pytest
import soundfile
from processes.cli_process import neurovocal

FAILING = """
from dataclasses import replace
import numpy as np
from neurovocal.plugins.detectors.energy import plugin as energy


class Failing:
    consumes = "samples"

    def __init__(self, inner):
        self._inner, self.latency = inner, inner.latency
        self._failed = False

    def process(self, item):
        if hasattr(item, "samples") and np.abs(item.samples).max() > 0.9:
            raise ValueError("too loud")
        if hasattr(item, "samples") and np.abs(item.samples).max() > 0.8:
            self._failed = True
        return self._inner.process(item)

    def flush(self):
        if self._failed:
            raise ValueError("too loud at its end")
        return self._inner.flush()

    def reset(self):
        self._failed = False
        self._inner.reset()


plugin = replace(energy, build=lambda options, context: Failing(
    energy.build(options, context)
))
"""


def song(path, rate, peak=0.3, seconds=1.0):
    values = np.random.default_rng(0).normal(0, 1e-3, round(rate * seconds))
    at = np.arange(rate // 10)
    values[rate // 2 : rate // 2 + len(at)] += (
        peak * np.hanning(len(at)) * np.sin(2 * np.pi * 0.2 * at)
    )
    soundfile.write(path, values, rate)
    return path


def rows(out):
    return {line.split(",")[0].rsplit("/")[-1] for line in out.splitlines()[1:]}


@pytest.mark.parametrize("odd", ["a.wav", "b.wav", "c.wav"])
@pytest.mark.parametrize("rate", [10, 8000])
def test_a_recording_of_an_unfit_rate_is_left_out_by_name(tmp_path, odd, rate):
    names = ["a.wav", "b.wav", "c.wav"]
    for name in names:
        song(tmp_path / name, rate if name == odd else 384_000)
    done = neurovocal("detect", tmp_path, "--config", "bat-ultrasound")
    assert done.code == 2
    assert rows(done.out) == {*names} - {odd}
    assert sum(odd in line for line in done.err.splitlines()) == 1
    assert "Traceback" not in done.err


@pytest.mark.parametrize("peak", [0.95, 0.85])
def test_a_recording_at_which_a_stage_fails_is_left_out_by_name(tmp_path, peak):
    (tmp_path / "failing.py").write_text(FAILING)
    for name in ("a.wav", "b.wav", "c.wav"):
        song(tmp_path / name, 32_000, peak if name == "b.wav" else 0.3)
    config = tmp_path / "c.yaml"
    config.write_text(
        f"version: 1\nsource: {{plugin: file, options: {{path: {tmp_path}}}}}\n"
        "detector: {plugin: './failing.py:plugin'}\n"
        "sinks: [{plugin: jsonl, options: {path: out.jsonl}}]\n"
    )
    done = neurovocal("run", config, cwd=tmp_path)
    assert done.code == 2
    out = (tmp_path / "out.jsonl").read_text().splitlines()
    lines = [json.loads(line) for line in out]
    ended = {line["stream"] for line in lines if line["kind"] == "offset"}
    assert {"a.wav", "c.wav"} <= ended
    (error,) = (line for line in done.err.splitlines() if line.startswith("error:"))
    assert "b.wav' is left out: " in error
    assert "too loud" in error


def test_a_folder_sets_an_unfit_recording_aside_until_the_configuration_changes(
    tmp_path,
):
    card = tmp_path / "card"
    card.mkdir()
    for number, rate in enumerate([384_000, 8000, 384_000]):
        song(card / f"20210513T19000{number}Z.wav", rate)

    def run(low_hz):
        config = tmp_path / "c.yaml"
        options = f"{{path: {card}, follow: false, settle_s: 0, partial_s: 0}}"
        config.write_text(
            f"version: 1\nsource: {{plugin: folder, options: {options}}}\n"
            f"detector: {{plugin: energy, options: {{low_hz: {low_hz}}}}}\n"
            f"sinks: [{{plugin: jsonl, options: {{path: out{low_hz}.jsonl}}}}]\n"
        )
        done = neurovocal("run", config, cwd=tmp_path)
        out = (tmp_path / f"out{low_hz}.jsonl").read_text().splitlines()
        found = [json.loads(line) for line in out]
        return done, {line["stream"] for line in found if line["kind"] == "offset"}

    done, ended = run(20_000)
    assert done.code == 2
    assert ended == {"20210513T190000Z.wav", "20210513T190002Z.wav"}
    assert "20210513T190001Z.wav" in done.err
    done, ended = run(20_000)
    assert (done.code, ended) == (0, set())
    done, ended = run(500)
    assert ended == {"20210513T190001Z.wav"}

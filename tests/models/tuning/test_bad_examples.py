"""Examples and datasets that are wrong or unusual: one sentence or a right answer."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from datasets.examples import RATE, STARTS, calls, five, write_calls, write_table
from numpy.typing import NDArray
from processes.cli_process import neurovocal

Run = Callable[..., tuple[int, str, str]]
HEAD = "onset_s,offset_s"


def last_line(err: str) -> str:
    # On a slow machine the progress comes first.
    return err.splitlines()[-1]


def n_found(out: str) -> int:
    return len(list(csv.DictReader(io.StringIO(out))))


def zeros(rate: int = RATE) -> NDArray[np.float64]:
    return np.zeros(4 * rate)


def with_nan() -> NDArray[np.float64]:
    samples = calls(STARTS)
    samples[20_000:20_010] = np.nan
    return samples


ROWS = [(at, at + 0.06) for at in STARTS[:5]]
REFUSED: list[tuple[NDArray[np.float64], list[tuple[float, float]], str]] = [
    (calls(STARTS), [(5.0, 5.1)], "a.csv:2: the example at 5 s ends at 5.1 s, and "),
    (calls(STARTS), [(1.0, 1.0)], "a.csv:2: the example at 1 s has no length"),
    (
        zeros(),
        ROWS,
        "a.csv:2: 'a.wav' is digitally silent there, from 0.000 s on: is it of another "
        "recording or channel?",
    ),
    (
        with_nan(),
        ROWS,
        "'a.wav': 10 samples around the examples are not finite (the first at 0.625 s)",
    ),
    (
        calls(()),
        ROWS,
        "a.csv:2: nothing is heard above the noise from 0.500 to 0.560 s of 'a.wav', "
        "nor in the 4 other examples: is it of another recording or channel?",
    ),
    (
        np.stack([calls(()), calls(STARTS)], axis=1),
        ROWS,
        "nor in the 4 other examples: channel 2 holds them: --channels 2",
    ),
    (
        np.stack([calls(())] * 7 + [calls(STARTS)], axis=1),
        ROWS[:1],
        "from 0.500 to 0.560 s of 'a.wav': channel 8 holds them: --channels 8",
    ),
]


@pytest.mark.parametrize("command", ["tune", "like"])
@pytest.mark.parametrize(("samples", "rows", "sentence"), REFUSED)
def test_what_cannot_be_used_is_one_sentence(
    folder: Path,
    run: Run,
    command: str,
    samples: NDArray[np.float64],
    rows: list[tuple[float, float]],
    sentence: str,
) -> None:
    soundfile.write("a.wav", samples, RATE, "FLOAT")
    write_table(folder / "a.csv", rows, HEAD)
    arguments = ["tune", "a.wav", "a.csv", "--out", "x.yaml"]
    if command == "like":
        arguments = ["detect", "a.wav", "--like", "a.csv", "--out", "x.csv"]
    code, out, err = run(*arguments)
    assert (code, out) == (1, ""), err
    assert last_line(err).startswith("error: ")
    assert sentence in last_line(err)
    assert err.count("error: ") == 1
    assert {path.name for path in folder.iterdir()} == {"a.wav", "a.csv"}


def test_init_tells_what_is_wrong_with_examples_in_one_sentence(folder: Path) -> None:
    soundfile.write("a.wav", zeros(), RATE, "FLOAT")
    five(folder / "five.csv")
    answers = ["", "file", "a.wav", "none", "examples", "a.wav", "five.csv", "none", ""]
    done = neurovocal("init", "x.yaml", cwd=folder, stdin="\n".join(answers).encode())
    assert "'a.wav' is digitally silent there" in done.err + done.out
    assert "Traceback" not in done.err
    assert not (folder / "x.yaml").exists()


@pytest.mark.parametrize("n_channels", [2, 8])
def test_a_channel_that_is_chosen_is_that_of_the_configuration(
    folder: Path, run: Run, n_channels: int
) -> None:
    silent = [calls(())] * (n_channels - 1)
    soundfile.write("a.wav", np.stack([*silent, calls(STARTS)], axis=1), RATE, "FLOAT")
    five(folder / "a.csv")
    chosen = ("--channels", n_channels)
    code, _, err = run("tune", "a.wav", "a.csv", *chosen, "--out", "x.yaml")
    assert code == 0, err
    try_now = f"detect a.wav --channels {n_channels} --config x.yaml"
    assert last_line(err) == f"now try: neurovocal {try_now}"
    written = yaml.safe_load((folder / "x.yaml").read_text())
    assert written["source"]["options"]["channels"] == [n_channels]
    assert n_found(run(*try_now.split())[1]) == len(STARTS)


def test_a_configuration_is_written_to_standard_output(folder: Path, run: Run) -> None:
    write_calls(folder / "a.wav")
    five(folder / "a.csv")
    run("tune", "a.wav", "a.csv", "--out", "x.yaml")
    code, out, err = run("tune", "a.wav", "a.csv", "--out", "-")
    assert code == 0, err
    assert out == (folder / "x.yaml").read_text()
    assert last_line(err) == (
        "wrote the configuration to standard output: finds 5 of 5 examples and 0 other "
        "sounds in 2.7 s"
    )
    assert {path.name for path in folder.iterdir()} == {"a.wav", "a.csv", "x.yaml"}


def test_ten_thousand_examples_are_used_in_part(folder: Path, run: Run) -> None:
    rate, starts = 4000, 0.1 + 0.12 * np.arange(10_000)
    write_calls(folder / "a.wav", starts, rate=rate, seconds=1201.0)
    rows = [(f"{at:.4f}", f"{at + 0.06:.4f}") for at in starts]
    write_table(folder / "a.csv", rows, HEAD)
    code, _, err = run("tune", "a.wav", "a.csv", "--out", "x.yaml")
    assert code == 0, err
    assert (
        "note: 1000 of 10000 examples are used, evenly chosen: two minutes of sound "
        "are enough" in err
    )
    # What is no example of a stretch, but listed, is no false alarm of it.
    assert "finds 1000 of 1000 examples and 0 other sounds" in err


def test_examples_of_every_sound_say_that_they_contradict_each_other(
    folder: Path, run: Run
) -> None:
    """Half of the examples are calls, half of them pauses between calls."""
    write_calls(folder / "a.wav")
    pauses = [(at - 0.12, at - 0.06) for at in STARTS[:5]]
    write_table(folder / "a.csv", sorted(ROWS + pauses), HEAD)
    code, _, err = run("tune", "a.wav", "a.csv", "--out", "x.yaml")
    assert code == 0, err
    assert err.count("the example is left out") == 5
    assert "finds 5 of 5 examples and 0 other sounds" in err


# ---- train --detector ----


def dataset(folder: Path, rows: Any, samples: Any, rate: int, n: int = 3) -> None:
    folder.mkdir()
    lines = [
        (f"{number}.wav", on, off, "call") for number in range(n) for on, off in rows
    ]
    write_table(folder / "annotations.csv", lines, "file,onset_s,offset_s,label")
    for number in range(n):
        moved = np.roll(samples, number, axis=0)  # copies are left out
        soundfile.write(folder / f"{number}.wav", moved, rate, "FLOAT")


RECIPE = """version: 1
scenes: {synthetic: 6, recorded: 6, rows: 150}
network: {n_hidden: 6, updates: 8, batch_size: 4, sequence_length: 60,
          validate_every: 4}
"""

BAD_SETS: list[tuple[Any, Any, str]] = [
    ([(5.0, 5.1)], calls(STARTS), "segment 'call' of 0.wav at 5 s ends at 5.1 s, past"),
    ([(1.0, 1.0)], calls(STARTS), "segment 'call' of 0.wav at 1 s has no length: it"),
    ([(0.5, 0.56), (0.52, 0.6)], calls(STARTS), "at 0.52 s overlaps 'call', which"),
    (ROWS, with_nan(), "0.wav: 10 samples are not finite (the first at 0.625 s)"),
    (ROWS, zeros(), "3 of 3 recordings of dataset 'set' hold no sound, all of their"),
]


@pytest.mark.parametrize(("rows", "samples", "sentence"), BAD_SETS)
def test_a_detector_network_is_not_trained_on_mistakes(
    folder: Path, run: Run, rows: Any, samples: Any, sentence: str
) -> None:
    pytest.importorskip("torch")
    dataset(folder / "set", rows, samples, RATE)
    (folder / "tiny.yaml").write_text(RECIPE)
    arguments = ["train", "--detector", "set", "--out", "b", "--config", "tiny.yaml"]
    code, _, err = run(*arguments)
    assert code == 1, err
    assert sentence in err
    assert not (folder / "b").exists()


@pytest.mark.parametrize(("rate", "n_channels"), [(1000, 1), (500_000, 1), (8000, 8)])
def test_a_detector_network_is_trained_on_any_rate_and_channels(
    folder: Path, run: Run, rate: int, n_channels: int
) -> None:
    pytest.importorskip("torch")
    samples = np.stack([calls(STARTS, rate=rate)] * n_channels, axis=1)
    dataset(folder / "set", ROWS, samples, rate, n=2)
    (folder / "tiny.yaml").write_text(RECIPE)
    arguments = ["train", "--detector", "set", "--out", "b", "--config", "tiny.yaml"]
    code, _, err = run(*arguments)
    assert code == 0, err
    (folder / "net.yaml").write_text(
        "version: 1\nsource: {plugin: file, options: {path: x.wav}}\n"
        "detector: {plugin: network, options: {bundle: b}}\nsinks: [{plugin: table}]\n"
    )
    code, out, err = run("detect", "set/0.wav", "--config", "net.yaml")
    assert code == 0, err
    assert n_found(out) == len(STARTS)

"""`neurovocal tune`, `detect --like` and `init`: a detector from a few examples."""

import csv
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from datasets.examples import RATE, STARTS, calls, five, write_calls, write_table
from processes.cli_process import RECORDING, neurovocal

from neurovocal.models.toolkit.segment_scores import score_onsets, score_overlaps
from neurovocal.models.tuning.fitting import fit
from neurovocal.models.tuning.heard import Stretch

ANNOTATIONS = RECORDING.with_name("annotations.csv")
Spans = list[tuple[float, float]]


Run = Callable[..., tuple[int, str, str]]


def segments(text: str) -> Spans:
    return [
        (float(row["onset_s"]), float(row["offset_s"]))
        for row in csv.DictReader(io.StringIO(text))
    ]


def test_readme_commands_find_the_finch(folder: Path, run: Run) -> None:
    lines = ANNOTATIONS.read_text().splitlines()
    (folder / "five.csv").write_text("\n".join(lines[:6]) + "\n")
    out = folder / "my-detector.yaml"
    code, _, err = run("tune", RECORDING, "five.csv", "--out", out)
    assert code == 0
    assert (
        f"wrote {out}: finds 5 of 5 examples and 0 other sounds in 2.2 s"
        in err.splitlines()
    )
    assert run("check", out)[0] == 0
    code, tuned, _ = run("detect", RECORDING, "--config", out)
    assert code == 0
    _, like, err = run("detect", RECORDING, "--like", "five.csv")
    assert like == tuned
    assert "finds 5 of 5 examples" in err
    annotated = [
        (float(row["onset_s"]), float(row["offset_s"]))
        for row in csv.DictReader(io.StringIO(ANNOTATIONS.read_text()))
    ]
    found = segments(tuned)
    assert score_onsets(annotated, found, 0.01).f1 >= 0.97
    assert score_overlaps(annotated, found, 0.5).f1 >= 0.97


@pytest.mark.parametrize("rate", [1000, 8000, 500_000])
@pytest.mark.parametrize("n", [1, 5])
def test_one_example_works_at_any_rate(
    folder: Path, run: Run, rate: int, n: int
) -> None:
    write_calls(folder / "a.wav", rate=rate)
    five(folder / "a.csv", n)
    code, out, err = run("detect", "a.wav", "--like", "a.csv")
    assert code == 0, err
    found = segments(out)
    wanted = [(at, at + 0.06) for at in STARTS]
    assert score_onsets(wanted, found, 0.02).f1 == 1.0
    assert score_overlaps(wanted, found, 0.5).f1 == 1.0


def test_low_calls_are_found_below_the_default_band(folder: Path, run: Run) -> None:
    write_calls(folder / "a.wav", pitch=0.004, duration=0.2)  # 128 Hz
    five(folder / "a.csv", duration=0.2)
    code, out, _ = run("detect", "a.wav", "--like", "a.csv")
    assert code == 0
    assert len(segments(out)) == len(STARTS)


FORMATS = {
    "a.csv": "file,onset_s,offset_s,label\n" + "a.wav,{0},{1},x\n",
    "b.csv": "onset_s,offset_s\n{0},{1}\n",
    "c.csv": "label,onset_s,offset_s,notated_path\nx,{0},{1},a.wav\n",
    "d.txt": "{0}\t{1}\tx\n",
    "e.txt": "{0}\t{1}\n",
    "f.txt": (
        "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\n"
        "1\tWaveform 1\t1\t{0}\t{1}\n"
    ),
    "a.TextGrid": (
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\nxmax = 4\n'
        'tiers? <exists>\nsize = 1\nitem []:\n item [1]:\n  class = "IntervalTier"\n'
        '  name = "x"\n  xmin = 0\n  xmax = 4\n  intervals: size = 3\n'
        '  intervals [1]:\n   xmin = 0\n   xmax = {0}\n   text = ""\n'
        '  intervals [2]:\n   xmin = {0}\n   xmax = {1}\n   text = "x"\n'
        '  intervals [3]:\n   xmin = {1}\n   xmax = 4\n   text = ""\n'
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_any_annotation_format_holds_examples(
    folder: Path, run: Run, name: str
) -> None:
    write_calls(folder / "a.wav")
    (folder / name).write_text(FORMATS[name].format(0.5, 0.56))
    code, _, err = run("tune", "a.wav", name, "--out", "x.yaml")
    assert code == 0, err
    assert "finds 1 of 1 example and 0 other sounds" in err
    found = yaml.safe_load((folder / "x.yaml").read_text())
    assert found["detector"]["plugin"] == "excess"
    assert len(found["detector"]["options"]["floor_db"]) == 32


def test_more_examples_are_not_worse() -> None:
    samples = calls(STARTS).astype(np.float32)
    wanted = [(at, at + 0.06) for at in STARTS]
    for n in (1, 3, 8):
        stop = wanted[n - 1][1]
        fitted = fit([Stretch(samples, RATE, wanted[:n], [(0.0, stop)])])
        assert score_onsets(wanted[:n], fitted.found[0], 0.01).f1 == 1.0


def test_the_fit_is_the_detector_that_runs(folder: Path, run: Run) -> None:
    write_calls(folder / "a.wav")
    five(folder / "a.csv")
    run("tune", "a.wav", "a.csv", "--out", "one.yaml")
    run("tune", "a.wav", "a.csv", "--out", "two.yaml")
    assert (folder / "one.yaml").read_text() == (folder / "two.yaml").read_text()


def test_a_label_and_a_channel_are_chosen(folder: Path, run: Run) -> None:
    other = calls((0.7, 1.2), pitch=0.02)
    eight = np.stack([other] * 7 + [calls(STARTS)], axis=1)
    soundfile.write(folder / "a.wav", eight, RATE, "FLOAT")
    rows = [(at, at + 0.06, "x") for at in STARTS[:5]] + [(0.7, 0.76, "y")]
    write_table(folder / "a.csv", rows, "onset_s,offset_s,label")
    arguments = ("a.wav", "a.csv", "--label", "x", "--channels", 8)
    code, _, err = run("tune", *arguments, "--out", "x.yaml")
    assert code == 0, err
    assert "finds 5 of 5 examples and 0 other sounds" in err
    code, _, err = run("tune", "a.wav", "a.csv", "--channels", 9, "--out", "y.yaml")
    assert (code, err) == (
        1,
        "error: 'a.wav' has 8 channels, there is no channel 9\n",
    )
    code, _, err = run("tune", "a.wav", "a.csv", "--label", "z", "--out", "y.yaml")
    assert code == 1
    assert "no segment has the label 'z' (there are 'x', 'y')" in err


DOUBTS = [
    (
        [(0.5, 0.56), (0.52, 0.6), (0.9, 0.96)],
        "note: five.csv:3: overlaps the example of five.csv:2: they are taken as one "
        "sound",
    ),
    (
        [(0.5, 0.56), (0.5, 0.56), (0.9, 0.96)],
        "note: five.csv:3: is the example of five.csv:2 again: it is used once",
    ),
    (
        [(0.5, 0.56), (0.7, 0.76), (0.9, 0.96)],
        "note: five.csv:3: nothing is heard above the noise from 0.700 to 0.760 s: "
        "the example is left out",
    ),
    (
        [(0.5, 0.56), (0.9, 0.96), (1.4, 2.2)],
        "note: five.csv:4: lasts 0.8 s, and the example of five.csv:2 0.06 s: one "
        "detector suits sounds of similar length; choose a kind with --label, or tune "
        "one each",
    ),
    (
        [(0.5, 0.56), (3.3, 3.36)],
        "note: five.csv:2: between the 2 examples 6 other sounds are as loud as they "
        "are, the first at 0.90 s: if they are calls, list them too, or say --sparse",
    ),
]


@pytest.mark.parametrize(("rows", "sentence"), DOUBTS)
def test_contradictions_are_one_sentence_each(
    folder: Path, run: Run, rows: Spans, sentence: str
) -> None:
    write_calls(folder / "a.wav")
    write_table(folder / "five.csv", rows, "onset_s,offset_s")
    code, _, err = run("tune", "a.wav", "five.csv", "--out", "x.yaml")
    assert code == 0
    assert sentence in err.splitlines()


def test_sparse_examples_may_have_calls_between_them(folder: Path, run: Run) -> None:
    write_calls(folder / "a.wav")
    write_table(folder / "a.csv", [(0.5, 0.56), (3.3, 3.36)], "onset_s,offset_s")
    code, _, err = run("tune", "a.wav", "a.csv", "--sparse", "--out", "x.yaml")
    assert (code, err.count("note:")) == (0, 0)
    _, out, _ = run("detect", "a.wav", "--config", "x.yaml")
    assert len(segments(out)) == len(STARTS)


HEAD = "onset_s,offset_s\n"
REFUSED = [
    (
        HEAD + "5,5.1\n",
        ":2: the example at 5 s ends at 5.1 s, and 'a.wav' at 4.000 s: is it of "
        "another recording, or in other units?",
    ),
    (
        HEAD + "1,1\n",
        ":2: the example at 1 s has no length: write its end behind its beginning",
    ),
    (
        HEAD + "1.4,1\n",
        ":2: the example at 1.4 s ends before it begins: write its end behind its "
        "beginning",
    ),
    (HEAD + "-1,1\n", ":2: the example at -1 s begins before the recording"),
    (HEAD + "nan,1\n", ":2: onset_s 'nan' is not finite"),
    (HEAD, ": holds no example"),
    ("", ": is empty: its first line must name the columns"),
    (
        "begin,end\n1,2\n",
        ": is no table of segments that is known: a CSV has the columns onset_s and "
        "offset_s; name another format with --format",
    ),
    (
        "onset_s;offset_s\n1,0;1,1\n",
        ": its columns are separated by semicolons: save it with commas between them "
        "and points in the numbers (the columns onset_s, offset_s)",
    ),
    (
        "file,onset_s,offset_s\nother.wav,1,1.1\n",
        ":2: the examples are of 'other.wav', and the recording is 'a.wav': give that "
        "one",
    ),
    (
        HEAD + "0.7,0.75\n",
        ":2: nothing is heard above the noise from 0.700 to 0.750 s of 'a.wav': is it "
        "of another recording or channel?",
    ),
]


@pytest.mark.parametrize(("table", "sentence"), REFUSED)
def test_tables_that_cannot_be_used_are_one_sentence(
    folder: Path, run: Run, table: str, sentence: str
) -> None:
    write_calls(folder / "a.wav")
    (folder / "a.csv").write_text(table)
    code, out, err = run("tune", "a.wav", "a.csv", "--out", "x.yaml")
    # On a slow machine the progress comes first.
    assert (code, out) == (1, "")
    assert err.splitlines(keepends=True)[-1] == f"error: a.csv{sentence}\n"
    assert not (folder / "x.yaml").exists()


def test_silence_and_missing_numbers_are_refused(folder: Path, run: Run) -> None:
    soundfile.write(folder / "a.wav", np.zeros(4 * RATE), RATE, "FLOAT")
    five(folder / "a.csv", 1)
    code, _, err = run("tune", "a.wav", "a.csv", "--out", "x.yaml")
    assert code == 1
    assert "'a.wav' is digitally silent there, from 0.000 s on" in err
    samples = calls(STARTS)
    samples[20_000:20_010] = np.nan
    soundfile.write(folder / "a.wav", samples, RATE, "FLOAT")
    code, _, err = run("tune", "a.wav", "a.csv", "--out", "x.yaml")
    # Within what is read for one example, which ends half a second behind it.
    assert (code, err) == (
        1,
        "error: 'a.wav': 10 samples around the examples are not finite (the first at "
        "0.625 s): repair the file, or give examples elsewhere\n",
    )


def test_a_floor_of_another_rate_is_told_and_not_used(folder: Path, run: Run) -> None:
    write_calls(folder / "b.wav", rate=16_000)
    floor = ", ".join(["-60"] * 32)
    (folder / "x.yaml").write_text(
        "version: 1\nsource: {plugin: file, options: {path: b.wav}}\n"
        f"detector: {{plugin: bands, options: {{floor_db: [{floor}], "
        "floor_rate: 32000}}\nsinks: [{plugin: zmq, options: "
        "{endpoint: 'tcp://127.0.0.1:5556'}}]\n"
    )
    sentence = (
        "detector: floor_db was measured at 32000 Hz and the stream has 16000 Hz: it "
        "starts without a noise floor; tune on a recording of its rate"
    )
    code, out, err = run("check", "x.yaml")
    assert (code, (out + err).count(sentence)) == (0, 1)
    code, out, err = run("detect", "b.wav", "--config", "x.yaml")
    assert (code, err.count(sentence)) == (0, 1)
    assert len(segments(out)) == len(STARTS)


def test_of_a_long_recording_only_the_stretch_is_read(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "long.wav"
    with soundfile.SoundFile(path, "w", 8000, 1, "PCM_U8") as file:
        for _ in range(36):  # ten hours
            file.write(np.zeros(8_000_000, np.int16))
        file.seek(8000 * 5000)
        file.write(calls(STARTS, rate=8000))
    rows = [(5000 + at, 5000 + at + 0.06) for at in STARTS[:5]]
    write_table(folder / "long.csv", rows, "onset_s,offset_s")
    lengths: list[int] = []
    inner = soundfile.SoundFile.read

    def read(self: Any, frames: int = -1, *more: Any, **named: Any) -> Any:
        lengths.append(frames)
        return inner(self, frames, *more, **named)

    monkeypatch.setattr(soundfile.SoundFile, "read", read)
    code, _, err = run("tune", path, "long.csv", "--out", "x.yaml")
    assert code == 0, err
    assert "finds 5 of 5 examples" in err
    assert sum(lengths) < 10 * 8000


def test_no_file_is_overwritten_unasked(folder: Path, run: Run) -> None:
    write_calls(folder / "a.wav")
    five(folder / "a.csv")
    for out in ("a.wav", "a.csv"):
        code, _, err = run("tune", "a.wav", "a.csv", "--out", out, "--force")
        assert code == 1
        assert "that is read" in err
    (folder / "x.yaml").write_text("version: 1\n")
    (folder / "notes.txt").write_text("keep me\n")
    code, _, err = run("tune", "a.wav", "a.csv", "--out", "x.yaml")
    assert (code, err) == (
        1,
        "error: --out 'x.yaml' exists already: choose another name or --force\n",
    )
    assert run("tune", "a.wav", "a.csv", "--out", "x.yaml", "--force")[0] == 0
    assert run("tune", "a.wav", "a.csv", "--out", "notes.txt", "--force")[0] == 1
    assert (folder / "notes.txt").read_text() == "keep me\n"
    code, _, err = run("detect", "a.wav", "--like", "a.csv", "--out", "a.csv")
    assert code == 1
    assert "--out 'a.csv' is the table that is read" in err


def test_examples_of_several_recordings_of_one_rate(folder: Path, run: Run) -> None:
    write_calls(folder / "a.wav")
    write_calls(folder / "b.wav", level=0.05)
    rows = [("a.wav", 0.5, 0.56), ("b.wav", 0.5, 0.56), ("b.wav", 0.9, 0.96)]
    write_table(folder / "all.csv", rows, "file,onset_s,offset_s")
    code, out, err = run("detect", "a.wav", "b.wav", "--like", "all.csv")
    assert code == 0
    assert "finds 3 of 3 examples" in err
    assert len(segments(out)) == 2 * len(STARTS)
    _, _, err = run("tune", "a.wav", "all.csv", "--out", "x.yaml")
    assert "all.csv: 2 examples are of other recordings, and not used" in err
    write_calls(folder / "b.wav", rate=16_000)
    code, _, err = run("detect", "a.wav", "b.wav", "--like", "all.csv")
    assert (code, err) == (
        1,
        "error: all.csv: examples are of recordings of 32000 Hz ('a.wav') and 16000 "
        "Hz ('b.wav'): give examples of one rate\n",
    )


def test_a_table_must_say_which_recording_it_is_of(folder: Path, run: Run) -> None:
    write_calls(folder / "a.wav")
    write_calls(folder / "b.wav")
    five(folder / "a.csv")
    five(folder / "five.csv")
    assert run("detect", "a.wav", "b.wav", "--like", "a.csv")[0] == 0
    code, _, err = run("detect", "a.wav", "b.wav", "--like", "five.csv")
    assert code == 1
    assert "does not say which of 2 recordings its examples are of" in err
    code, _, err = run("detect", "a.wav", "--label", "x")
    assert "--label chooses among examples" in err
    code, _, err = run("detect", "a.wav", "--like", "a.csv", "--config", "songbird")
    assert "exclude each other" in err


def test_recording_and_table_are_told_apart(folder: Path, run: Run) -> None:
    write_calls(folder / "a.wav")
    five(folder / "a.csv")
    for arguments in (("a.csv", "a.wav"), ("a.wav", "a.wav")):
        code, _, err = run("tune", *arguments, "--out", "x.yaml")
        assert (code, err) == (
            1,
            "error: 'a.wav' is a recording, and no table of examples: the table is "
            "CSV, Raven, Audacity, TextGrid, ...\n",
        )
    code, _, err = run("tune", ".", "a.csv", "--out", "x.yaml")
    assert (code, err) == (1, "error: recording '.' is a folder\n")
    code, _, err = run("tune", "b.wav", "a.csv", "--out", "x.yaml")
    assert (code, err) == (1, "error: recording 'b.wav' does not exist\n")


@pytest.mark.parametrize("form", ["csv", "raven", "audacity"])
def test_rows_that_detect_wrote_are_examples(folder: Path, run: Run, form: str) -> None:
    write_calls(folder / "a.wav")
    run("detect", "a.wav", "--format", form, "--out", "all.txt")
    lines = (folder / "all.txt").read_text().splitlines()
    (folder / "some.txt").write_text("\n".join(lines[:4]) + "\n")
    code, out, err = run("detect", "a.wav", "--like", "some.txt")
    assert code == 0, err
    assert len(segments(out)) == len(STARTS)


def test_no_training_stack_is_needed(folder: Path) -> None:
    write_calls(folder / "a.wav")
    five(folder / "a.csv")
    program = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        absent = {'torch', 'crowsetta', 'pandas', 'onnx', 'matplotlib'}\n"
        "        if name.partition('.')[0] in absent:\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from neurovocal.engine.cli import main\n"
        "main(['tune', 'a.wav', 'a.csv', '--out', 'x.yaml'])\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_init_offers_examples(folder: Path) -> None:
    write_calls(folder / "a.wav")
    five(folder / "five.csv")
    answers = "\n".join(
        ["", "file", "a.wav", "none", "examples", "a.wav", "five.csv", "none", "", ""]
    )
    done = neurovocal("init", "x.yaml", cwd=folder, stdin=answers.encode())
    assert done.code == 0, done.err
    written = yaml.safe_load((folder / "x.yaml").read_text())
    assert written["detector"]["plugin"] == "excess"


@pytest.mark.parametrize("name", ["bats_europe", "mouse_usv", "meerkat", "fly_song"])
def test_five_calls_of_other_animals_are_enough(
    folder: Path, run: Run, data_folder: Path, name: str
) -> None:
    table = (data_folder / name / "annotations.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(table)))
    rows = [row for row in rows if row["file"] == rows[0]["file"]]
    six = [(row["onset_s"], row["offset_s"]) for row in rows[:6]]
    write_table(folder / "a.csv", six, "onset_s,offset_s")
    recording = data_folder / name / rows[0]["file"]
    code, out, err = run("detect", recording, "--like", "a.csv")
    assert code == 0, err
    wanted = [(float(row["onset_s"]), float(row["offset_s"])) for row in rows]
    found = segments(out)
    assert score_overlaps(wanted, found, 0.3).recall >= 0.6

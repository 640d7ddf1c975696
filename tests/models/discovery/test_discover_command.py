"""The command: from recordings to draft annotations, also of faulty ones."""

import csv
import json
import signal
import sys
import urllib.request
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile
from datasets.kinds import RATE, kind_at, order, write_kinds
from processes.cli_process import running
from processes.waiting import PATIENCE_S, PROCESS_S

from neurovocal.models.data.datasets import survey_dataset
from neurovocal.models.discovery.discover import Discovery
from neurovocal.models.discovery.folder import DiscoveryFolder
from neurovocal.models.review.folder import read_folder
from neurovocal.models.toolkit.onnx_session import Session
from neurovocal.plugins.features.patches import N_BINS, N_COLUMNS

QUICK = ("--updates", 30)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "annotations.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def last_line(err: str) -> str:
    return err.splitlines()[-1]


def test_clusters_are_the_kinds_of_sounds(finished):
    kinds = {f"song{n}.wav": order(36, n) for n in (1, 2)}
    by_label = defaultdict(Counter)
    for row in rows(finished / "found"):
        assert row["file"].startswith("../songs/")
        truth = kinds[Path(row["file"]).name]
        by_label[row["label"]][kind_at(truth, float(row["onset_s"]))] += 1
    assert sum(sum(counts.values()) for counts in by_label.values()) == 72
    unknown = sum(by_label.pop("unknown", Counter()).values())
    assert unknown <= 7
    for label, counts in by_label.items():
        assert len(counts) == 1, f"{label} holds several kinds: {counts}"
    assert {next(iter(counts)) for counts in by_label.values()} == {
        *("tone", "sweep", "buzz")
    }


def test_the_autoencoder_is_exported_and_outliers_are_listed(finished):
    folder = finished / "found"
    patches = np.fromfile(folder / "patches.u8", np.uint8)
    patches = patches.reshape(-1, N_COLUMNS, N_BINS)
    encoder, decoder = (Session(folder / f"{n}.onnx") for n in ("encoder", "decoder"))
    latent = encoder.run(patches=patches.astype(np.float32) / 255)["latent"]
    # The codes are what the clusters were found in.
    features = np.load(folder / "features.npz")["features"]
    centred = latent - latent.mean(0)
    assert np.corrcoef(centred.ravel(), features.ravel())[0, 1] > 0.999
    decoded = decoder.run(latent=latent)["patches"] * 255
    away = np.square(decoded - patches).mean()
    assert away < 0.3 * np.square(patches - patches.mean(0)).mean()
    with (folder / "outliers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    scores = [float(row["outlier"]) for row in rows]
    assert len(rows) == len(patches)
    assert scores == sorted(scores, reverse=True)
    assert Path(rows[0]["file"]).is_file()


def test_same_seed_gives_the_same_files(run, finished, tmp_path):
    for name in ("a", "b"):
        code, _, err = run("discover", finished / "songs", "--out", name, *QUICK)
        assert code == 0, err
    a, b = (tmp_path / name for name in ("a", "b"))
    assert (a / "annotations.csv").read_bytes() == (b / "annotations.csv").read_bytes()
    for name in ("features", "places"):
        one, other = (getattr(DiscoveryFolder(each), name)() for each in (a, b))
        np.testing.assert_array_equal(one, other)


def test_a_stopped_discovery_goes_on_where_it_was(run, finished, tmp_path, monkeypatch):
    songs = finished / "songs"
    assert run("discover", songs, "--out", "whole", *QUICK)[0] == 0
    with monkeypatch.context() as patched:
        patched.setattr(Discovery, "_features", _interrupt)
        code, _, err = run("discover", songs, "--out", "parts", *QUICK)
    assert code == 3
    assert "run the same command again" in last_line(err)
    assert len(DiscoveryFolder(tmp_path / "parts").found()) == 2
    with monkeypatch.context() as patched:
        patched.setattr("neurovocal.models.discovery.discover.detect_recording", None)
        code, _, err = run("discover", songs, "--out", "parts", *QUICK)
    assert code == 0, err
    whole, parts = (tmp_path / n / "annotations.csv" for n in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()
    code, _, err = run("discover", songs, "--out", "parts", *QUICK)
    assert code == 0
    assert "is finished already" in err


def _interrupt(self, recordings, segments):
    self._stop.raised = True
    self._check_stop("testing")


def test_json_tells_the_numbers(run, finished):
    code, out, _ = run(
        *("discover", finished / "songs", "--out", "found", "--json", *QUICK)
    )
    told = json.loads(out)
    assert code == 0
    assert told["recordings"] == 2
    assert told["segments"] == 72
    assert told["recordings_set_aside"] == told["recordings_without_sounds"] == 0


def test_other_recordings_or_options_need_overwrite(run, found):
    songs = found.parent / "songs"
    before = (found / "annotations.csv").read_bytes()
    arguments = ("discover", songs, "--out", found, "--seed", 3, *QUICK)
    code, _, err = run(*arguments)
    assert code == 1
    assert "--overwrite" in last_line(err)
    assert (found / "annotations.csv").read_bytes() == before
    (found / "changes.jsonl").write_text("")
    code, _, err = run(*arguments, "--overwrite")
    assert code == 0, err
    # What people did is never lost; and a third run finds the folder its own.
    assert (found / "annotations.csv.1").read_bytes() == before
    assert (found / "changes.jsonl.1").exists()
    assert not (found / "changes.jsonl").exists()
    assert run(*arguments)[0] == 0
    assert json.loads((found / "discovery.json").read_text())["request"]["seed"] == 3


def test_foreign_folders_and_files_are_refused(run, tmp_path):
    write_kinds(tmp_path / "song.wav", order(3, 1))
    for name in ("full", "file"):
        if name == "file":
            (tmp_path / name).write_text("mine")
        else:
            (tmp_path / name).mkdir()
            (tmp_path / name / "thesis.txt").write_text("mine")
        code, _, err = run("discover", "song.wav", "--out", name)
        assert code == 1
        assert f"--out '{tmp_path / name}'" in err or f"--out '{name}'" in err
    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"


def test_a_changed_table_is_kept(run, found):
    (found / "annotations.csv").write_text("mine")
    state = json.loads((found / "discovery.json").read_text())
    del state["finished"]
    (found / "discovery.json").write_text(json.dumps(state))
    songs = Path(state["request"]["recordings"][0]).parent
    code, _, err = run(
        *("discover", songs, "--out", found, "--updates", 150, "--min-size", 8)
    )
    assert code == 0, err
    assert (found / "annotations-1.csv").read_text() == "mine"
    assert "annotations-1.csv" in err
    assert len(rows(found)) == 72


# ---- recordings that are wrong or unusual ----


def test_no_recording(run, tmp_path):
    code, _, err = run("discover", "nowhere.wav", "--out", "found")
    assert code == 1
    assert "'nowhere.wav' does not exist" in err
    assert not (tmp_path / "found").exists()


def test_one_and_two_segments_stay_unknown(run, tmp_path):
    for count in (1, 2):
        write_kinds(tmp_path / f"{count}.wav", order(count, 1))
        folder = tmp_path / f"found{count}"
        code, out, err = run("discover", f"{count}.wav", "--out", folder, *QUICK)
        assert code == 0, err
        assert [row["label"] for row in rows(folder)] == ["unknown"] * count
        assert "0 clusters" in out
        assert "more recordings" in out


def test_silence_is_told(run, tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(4 * RATE), RATE)
    code, _, err = run("discover", "silence.wav", "--out", "found", *QUICK)
    assert code == 1
    assert "no sounds were found in 1 recording" in last_line(err)


def test_identical_segments_are_one_cluster(run, tmp_path):
    write_kinds(tmp_path / "tones.wav", ["tone"] * 16)
    samples, rate = soundfile.read(tmp_path / "tones.wav")
    step = len(samples) // 17
    one = samples[step : 2 * step]
    soundfile.write(tmp_path / "tones.wav", np.tile(one, 20), rate)
    code, _, err = run("discover", "tones.wav", "--out", "found", *QUICK)
    assert code == 0, err
    labels = Counter(row["label"] for row in rows(tmp_path / "found"))
    assert labels["c1"] >= sum(labels.values()) / 2


@pytest.mark.parametrize("rate", [1000, 500_000])
def test_rates(run, tmp_path, rate):
    write_kinds(tmp_path / "song.wav", order(15, 1), rate)
    code, _, err = run("discover", "song.wav", "--out", "found", *QUICK)
    assert code == 0, err
    found = rows(tmp_path / "found")
    assert len(found) >= 12
    assert all(float(r["onset_s"]) < float(r["offset_s"]) for r in found)


def test_channels(run, tmp_path):
    write_kinds(tmp_path / "song.wav", order(15, 1), channels=8)
    code, _, err = run(
        *("discover", "song.wav", "--out", "found", "--channels", 8, *QUICK)
    )
    assert code == 0, err
    found = rows(tmp_path / "found")
    assert len(found) == 15
    assert {row["channel"] for row in found} == {"8"}
    code, _, err = run(
        *("discover", "song.wav", "--out", "other", "--channels", 9, *QUICK)
    )
    assert code == 1
    assert "there is no channel 9" in err


def test_a_broken_file_holds_nobody_up(run, tmp_path):
    (tmp_path / "songs").mkdir()
    write_kinds(tmp_path / "songs" / "good.wav", order(15, 1))
    (tmp_path / "songs" / "broken.wav").write_bytes(b"RIFF, but nothing more")
    (tmp_path / "songs" / "empty.flac").write_bytes(b"")
    soundfile.write(tmp_path / "songs" / "quiet.wav", np.zeros(RATE), RATE)
    code, _, err = run("discover", "songs", "--out", "found", *QUICK)
    assert code == 2
    assert "broken.wav" in err
    assert "empty.flac" in err
    assert err.count("it is set aside") == 2
    assert "1 of 2 recordings have no sounds" in err
    assert {row["file"] for row in rows(tmp_path / "found")} == {"../songs/good.wav"}


def test_not_a_number_in_the_sound(run, tmp_path):
    write_kinds(tmp_path / "song.wav", order(12, 1))
    samples, rate = soundfile.read(tmp_path / "song.wav", dtype="float32")
    samples[100:200] = np.nan
    soundfile.write(tmp_path / "song.wav", samples, rate, subtype="FLOAT")
    code, _, err = run("discover", "song.wav", "--out", "found", *QUICK)
    assert code == 0, err
    assert len(rows(tmp_path / "found")) == 12


# ---- arguments ----


@pytest.mark.parametrize("module", ["torch", "sklearn"])
def test_a_missing_package_is_told_with_its_extra(run, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    code, _, err = run("discover", "song.wav", "--out", "found")
    assert code == 1
    assert "pip install 'neurovocal[discover]'" in last_line(err)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("song.wav",), "--out DIR is missing"),
        (("a", "b", "--page"), "takes the one folder"),
        (("nowhere", "--page"), "'nowhere' does not exist"),
        (("song.wav", "--out", "o", "--label", "a"), "add --like TABLE"),
        (
            ("song.wav", "--out", "o", "--config", "songbird", "--like", "t.csv"),
            "exclude each other",
        ),
        (("song.wav", "--out", "o", "--config", "nothing.yaml"), "nothing.yaml"),
        (("song.wav", "--out", "."), "holds the recordings themselves"),
    ],
)
def test_wrong_arguments(run, tmp_path, arguments, sentence):
    write_kinds(tmp_path / "song.wav", order(2, 1))
    code, _, err = run("discover", *arguments)
    assert code == 1
    assert sentence in err


def test_a_bundle_adds_its_recurrent_state(run, tmp_path):
    write_kinds(tmp_path / "song.wav", order(15, 1), 32_000)
    code, _, err = run(
        *("discover", "song.wav", "--out", "found", "--bundle", "bengalese-finch"),
        *QUICK,
    )
    assert code == 0, err
    features = DiscoveryFolder(tmp_path / "found").features()
    assert features is not None
    assert features.shape[1] > 32
    assert np.isfinite(features).all()


def test_presets_choose_detector_and_band(run, tmp_path):
    write_kinds(tmp_path / "song.wav", order(15, 1), 32_000)
    code, _, err = run(
        *("discover", "song.wav", "--out", "found", "--config", "songbird", *QUICK)
    )
    assert code == 0, err
    folder = DiscoveryFolder(tmp_path / "found")
    request = folder.state()["request"]
    assert folder.spec().low_hz == request["detector"]["options"]["low_hz"]


def test_training_and_review_read_the_folder(finished):
    dataset, problems = survey_dataset(finished / "found", None)
    assert not problems
    assert sum(len(each.annotations) for each in dataset.recordings) == 72
    collection = read_folder(finished / "found")
    assert len(collection.segments) == 72
    assert not collection.notes


def test_the_page_is_served_until_ctrl_c(finished):
    arguments = ("discover", "--page", finished / "found", "--port", "0")
    with running(*arguments) as process:
        line = process.stdout.readline()
        address = line.split()[-1]
        assert address.endswith("/discover"), process.stderr.read()
        with urllib.request.urlopen(address, timeout=PATIENCE_S) as answer:
            assert b"<title>Discover" in answer.read()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PROCESS_S)
        assert process.returncode == 0, err
        assert "changes are kept in" in err

"""Scans: same bytes in any order, nothing lost and nothing twice after any end."""

import csv
import io
import os
from dataclasses import dataclass
from pathlib import Path
from shutil import copy, copytree

import pytest
import soundfile
from bundles.tiny_bundle import make_tiny_bundle
from datasets.archives import InlineCluster, contents, make_archive, rows
from processes.cli_process import neurovocal
from processes.failing_disks import no_file_above

from neurovocal.engine import ConfigError
from neurovocal.models.scan import labelling
from neurovocal.models.scan import results as results_module
from neurovocal.models.scan.cluster import WorkerKilledError
from neurovocal.models.scan.command import make_job
from neurovocal.models.scan.labelling import Job, Task
from neurovocal.models.scan.progress import Progress
from neurovocal.models.scan.recordings import Input, find_inputs, station_of
from neurovocal.models.scan.results import Results
from neurovocal.models.scan.scan import Counts, make_tasks, run_tasks
from neurovocal.models.scan.tables import UNKNOWN, read_provenance

SMALL = 300_000  # bytes of a task: two recordings of the archive


@dataclass
class Scans:
    """An archive and a bundle, and scans of them."""

    archive: Path
    job: Job
    base: str | None = None

    def run(self, out: Path, cluster: InlineCluster | None = None) -> Counts:
        inputs = find_inputs([str(self.archive)], self.base)
        results = Results(out, self.job.provenance)
        results.open({each.shown: each.version for each in inputs})
        counts = Counts(len(inputs), 1)
        try:
            tasks = make_tasks(inputs, results.finished.copy(), SMALL, None)
            cluster = cluster or InlineCluster(self.job)
            run_tasks(tasks, cluster, results, counts, lambda _: None)
            results.write_bad(counts.later)
        finally:
            results.close()
        return counts


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Scans:
    folder = tmp_path_factory.mktemp("scan")
    bundle = make_tiny_bundle(folder / "bundle", rnn_rbm=False)
    job = make_job(str(bundle), None, None, None, None)
    return Scans(make_archive(folder / "archive"), job)


@pytest.fixture(scope="module")
def expected(scans: Scans, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("expected") / "results"
    scans.run(out)
    return out


def test_compiled_kernels_in_the_middle_give_the_same_bytes(
    scans, expected, tmp_path, monkeypatch
):
    monkeypatch.setattr(labelling, "_KERNELS_AFTER_S", -1.0)
    loaded = []
    load = labelling.load_kernels
    monkeypatch.setattr(labelling, "load_kernels", lambda: loaded.append(load()))
    labelling._labeller_of.cache_clear()
    scans.run(tmp_path / "results")
    assert loaded == [load()]
    assert contents(tmp_path / "results") == contents(expected)


def test_rows_are_those_of_label(scans, expected, tmp_path):
    config = tmp_path / "tile.yaml"
    config.write_text(
        "version: 1\ntile: 500\nsource: {plugin: file, options: {path: x.wav}}\n"
        "sinks: [{plugin: jsonl, options: {path: x.jsonl}}]\n"
    )
    bundle = scans.archive.parent / "bundle"
    done = neurovocal(
        "label", scans.archive, "--bundle", bundle, "--config", config, "--out", "-"
    )
    assert done.code == 0, done.err
    table = csv.DictReader(io.StringIO(done.out))
    wanted = sorted(
        (r["file"], r["onset_s"], r["offset_s"], r["label"], r["posterior"])
        for r in table
    )
    found = sorted(
        (
            r["recording"],
            f"{r['onset_s']:.6f}",
            f"{r['offset_s']:.6f}",
            r["label"],
            f"{r['posterior']:.6f}",
        )
        for r in rows(expected)
    )
    assert found == wanted
    assert len(found) > 40


def test_rows_lie_in_the_day_and_station_of_their_onset(expected):
    found = rows(expected)
    for row in found:
        assert str(row["onset_utc"].date()) == str(row["day"])
        assert row["station"] in Path(row["recording"]).name
    days = {str(row["day"]) for row in found}
    assert days == {"2021-05-10", "2021-05-11", "2021-05-12"}


@pytest.mark.parametrize(("threads", "seed"), [(1, 1), (2, 2), (8, 3)])
def test_any_order_gives_the_same_bytes(scans, expected, tmp_path, threads, seed):
    scans.run(tmp_path / "out", InlineCluster(scans.job, threads, seed))
    assert contents(tmp_path / "out") == contents(expected)


@pytest.mark.parametrize("n_before", range(4))
def test_an_interrupted_scan_continues_to_the_same_bytes(
    scans, expected, tmp_path, n_before
):
    def interrupt(task: Task) -> None:
        if len(first.tasks) > n_before:
            raise KeyboardInterrupt

    first = InlineCluster(scans.job, before=interrupt, seed=5)
    with pytest.raises(KeyboardInterrupt):
        scans.run(tmp_path / "out", first)
    second = InlineCluster(scans.job)
    scans.run(tmp_path / "out", second)
    assert contents(tmp_path / "out") == contents(expected)
    assert len(second.tasks) == 4 - n_before


@pytest.mark.parametrize("n_writes", range(12))
def test_a_kill_between_two_writes_loses_nothing(
    scans, expected, tmp_path, monkeypatch, n_writes
):
    whole = results_module.write_whole
    written = 0

    def killed(path: Path, content: bytes) -> None:
        nonlocal written
        if written == n_writes:
            (path.parent / f".{path.name}.new").write_bytes(content[:50])
            raise KeyboardInterrupt
        written += 1
        whole(path, content)

    monkeypatch.setattr(results_module, "write_whole", killed)
    with pytest.raises(KeyboardInterrupt):
        scans.run(tmp_path / "out")
    monkeypatch.undo()
    scans.run(tmp_path / "out")
    assert contents(tmp_path / "out") == contents(expected)


def test_a_full_disk_ends_the_scan_and_the_next_completes_it(scans, expected, tmp_path):
    out = tmp_path / "out"
    largest = max(len(content) for content in contents(expected).values())
    with no_file_above(largest - 1), pytest.raises(OSError, match="large"):
        scans.run(out)
    assert not [name for name in contents(out) if name.endswith(".new")]
    scans.run(out)
    assert contents(out) == contents(expected)


def test_a_lost_file_of_the_data_set_is_computed_again(scans, expected, tmp_path):
    scans.run(tmp_path / "out")
    next((tmp_path / "out" / "labels").rglob("*.parquet")).unlink()
    cluster = InlineCluster(scans.job)
    scans.run(tmp_path / "out", cluster)
    assert len(cluster.tasks) == 1
    assert contents(tmp_path / "out") == contents(expected)


def test_a_recording_that_changes_while_it_is_read_leaves_nothing(scans, tmp_path):
    archive = make_archive(tmp_path / "archive", 1, 1)
    changing = sorted(archive.rglob("*.wav"))[0]

    def change(task: Task) -> None:
        with changing.open("ab") as file:
            file.write(bytes(8))

    own = Scans(archive, scans.job)
    counts = own.run(tmp_path / "out", InlineCluster(scans.job, before=change))
    assert counts.later == {str(changing): "it changed while it was read"}
    assert str(changing) not in {row["recording"] for row in rows(tmp_path / "out")}
    assert "later" in (tmp_path / "out" / "bad-recordings.csv").read_text()
    assert not own.run(tmp_path / "out").later
    assert str(changing) in {row["recording"] for row in rows(tmp_path / "out")}
    # Nothing is left to do, and nothing is twice.
    before = contents(tmp_path / "out")
    cluster = InlineCluster(scans.job)
    own.run(tmp_path / "out", cluster)
    assert not cluster.tasks
    assert contents(tmp_path / "out") == before


def test_a_recording_that_changed_since_is_read_again(scans, tmp_path):
    archive = copytree(scans.archive, tmp_path / "archive")
    again = Scans(archive, scans.job)
    again.run(tmp_path / "results")
    first, *_, last = sorted(archive.rglob("*.wav"))
    copy(last, first)
    os.utime(first, ns=(1, 1))
    counts = again.run(tmp_path / "results")
    assert 1 <= counts.recordings < counts.total  # those of its task
    again.run(tmp_path / "fresh")
    assert contents(tmp_path / "results") == contents(tmp_path / "fresh")
    assert again.run(tmp_path / "results").recordings == 0


def test_others_of_a_task_are_kept_where_they_are_not_at_hand(scans, tmp_path):
    archive = copytree(scans.archive, tmp_path / "archive")
    Scans(archive, scans.job).run(tmp_path / "results")
    found = rows(tmp_path / "results")
    first, second, *_ = sorted(archive.rglob("*.wav"))
    os.utime(first, ns=(1, 1))
    second.unlink()
    Scans(archive, scans.job).run(tmp_path / "results")
    assert rows(tmp_path / "results") == found


def test_names_relative_to_a_folder_stay_when_it_moves(scans, tmp_path):
    archive = copytree(scans.archive, tmp_path / "here")
    Scans(archive, scans.job, str(archive)).run(tmp_path / "results")
    names = {row["recording"] for row in rows(tmp_path / "results")}
    assert names <= {str(f.relative_to(archive)) for f in archive.rglob("*.*")}
    moved = archive.rename(tmp_path / "there")
    counts = Scans(moved, scans.job, str(moved)).run(tmp_path / "results")
    assert counts.recordings == 0
    with pytest.raises(ConfigError, match=r"--relative-to: .* does not lie in"):
        find_inputs([str(moved)], str(tmp_path / "here"))
    recording = next(iter(moved.rglob("*.wav")))
    for base in ("", str(recording)):
        with pytest.raises(ConfigError, match=r"--relative-to '.*' is no folder"):
            find_inputs([str(moved)], base)


@pytest.mark.parametrize("command", ["label", "scan"])
def test_models_that_are_left_out_are_told(scans, tmp_path, command):
    config = tmp_path / "c.yaml"
    config.write_text(
        "version: 1\nsource: {plugin: synthetic}\n"
        "models: [{plugin: onnx, options: {manifest: no.yaml}}]\n"
        "sinks: [{plugin: jsonl}]\n"
    )
    recording = next(iter(sorted(scans.archive.rglob("*.wav"))))
    bundle = scans.archive.parent / "bundle"
    done = neurovocal(
        *(command, recording, "--bundle", bundle, "--config", config),
        *("--out", tmp_path / "out"),
    )
    assert "only detector and tile are used here, not its model onnx" in done.err
    assert done.code == 0


def test_bad_recordings_are_listed_and_in_nobodys_way(scans, tmp_path):
    archive = make_archive(tmp_path / "archive", 1, 1)
    (archive / "ST0" / "ST0_20210510_130000Z.wav").write_text("no sound")
    whole = sorted(archive.rglob("*.wav"))[0].read_bytes()
    (archive / "ST0" / "ST0_20210510_140000Z.wav").write_bytes(whole[:90_000])
    Scans(archive, scans.job).run(tmp_path / "out")
    with (tmp_path / "out" / "bad-recordings.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [(Path(r["recording"]).name, r["state"]) for r in table] == [
        ("ST0_20210510_130000Z.wav", "bad"),
        ("ST0_20210510_140000Z.wav", "partial"),
    ]
    assert "text file" in table[0]["reason"]
    assert "cut off" in table[1]["reason"]
    assert len({row["recording"] for row in rows(tmp_path / "out")}) == 3


def test_a_task_that_kills_its_workers_is_cut_to_single_recordings(scans, tmp_path):
    archive = make_archive(tmp_path / "archive", 1, 1)
    deadly = sorted(archive.rglob("*.wav"))[1]

    def kill(task: Task) -> None:
        if any(each.name == str(deadly) for each in task.inputs):
            raise WorkerKilledError

    counts = Scans(archive, scans.job).run(
        tmp_path / "out", InlineCluster(scans.job, before=kill)
    )
    assert list(counts.later) == [str(deadly)]
    assert {row["recording"] for row in rows(tmp_path / "out")} == {
        str(path) for path in sorted(archive.rglob("*.wav")) if path != deadly
    }


def test_other_options_are_refused(scans, tmp_path):
    scans.run(tmp_path / "out")
    other = Results(tmp_path / "out", {**scans.job.provenance, "tile": 8})
    with pytest.raises(ConfigError, match="tile 500, and now it is 8"):
        other.open()


def test_a_folder_of_the_users_is_refused(scans, tmp_path):
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(ConfigError, match="holds other files"):
        scans.run(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["thesis.txt"]


def test_one_run_at_a_time_writes_a_folder(scans, tmp_path):
    bundle = scans.archive.parent / "bundle"
    scans.run(tmp_path / "out")
    results = Results(tmp_path / "out", scans.job.provenance)
    results.open()
    try:
        done = neurovocal(
            "scan", scans.archive, "--bundle", bundle, "--out", tmp_path / "out"
        )
    finally:
        results.close()
    assert done.code == 1
    assert "in use" in done.err or "task_mib" in done.err


def test_files_tell_what_made_them(scans, expected):
    for part in (expected / "labels").rglob("*.parquet"):
        assert read_provenance(str(part)) == scans.job.provenance
    assert scans.job.provenance["bundle"]["name"] == "tiny"


def test_recordings_without_time_have_no_day(scans, tmp_path):
    path = make_archive(tmp_path / "a", 1, 1) / "ST0" / "ST0_20210510_120000Z.wav"
    samples, rate = soundfile.read(path)
    soundfile.write(tmp_path / "b.wav", samples, rate, subtype="FLOAT")
    Scans(tmp_path / "b.wav", scans.job).run(tmp_path / "out")
    (folder,) = (tmp_path / "out" / "labels").iterdir()
    assert folder.name == f"day={UNKNOWN}"
    assert {str(row["day"]) for row in rows(tmp_path / "out")} == {"unknown"}


@pytest.mark.parametrize(
    ("name", "pattern", "station"),
    [
        ("/a/SM4A12_20210513_190000.wav", None, "SM4A12"),
        ("/a/site 7/20210513_190000.WAV", None, "site 7"),
        ("/a/site7/2021-05-13/19-00-00.flac", None, "site7"),
        ("/a/site7/Data/20210513/20210513_190000.WAV", None, "site7"),
        ("s3://bucket/AM-03/5E7F1A2B.WAV", None, "AM-03"),
        ("/20210513_190000.wav", None, "unknown"),
        ("/a/site7/x.wav", r"/(site\d)/", "site7"),
        ("/a/x.wav", r"/(site\d)/", "unknown"),
    ],
)
def test_stations(name, pattern, station):
    assert station_of(name, pattern) == station


def test_tasks_end_at_stations_sizes_and_finished_recordings():
    inputs = [Input(f"/{s}_2021010{i}.wav", 40, "1") for s in "AB" for i in range(4)]

    def names(finished: set[str]) -> list[list[str]]:
        tasks = make_tasks(inputs, finished, 100, None)
        return [[each.name[1] + each.name[-5] for each in t.inputs] for t in tasks]

    assert names(set()) == [["A0", "A1"], ["A2", "A3"], ["B0", "B1"], ["B2", "B3"]]
    assert names({inputs[2].name, inputs[3].name}) == [
        ["A0", "A1"],
        ["B0", "B1"],
        ["B2", "B3"],
    ]
    assert names({inputs[1].name}) == [["A0"], ["A2", "A3"], ["B0", "B1"], ["B2", "B3"]]


def test_files_without_sound_tell_nothing_about_the_time_that_is_left():
    now = [0.0]
    progress = Progress(lambda: now[0])
    now[0] = 40.0
    counts = Counts(10, 12_000_000, recordings=1, bytes=42, threads=2)
    assert progress.line(counts) == "1 of 10 recordings"
    counts.bytes, counts.audio_s = 6_000_000, 80.0
    assert progress.line(counts).endswith("2 x real time, 40 s left")


def test_another_bundle_is_refused_by_its_name(tmp_path):
    kept = {"bundle": {"name": "finch", "sha256": "ab" * 32}}
    Results(tmp_path / "out", kept).open()
    with pytest.raises(ConfigError) as refused:
        Results(tmp_path / "out", {"bundle": None}).open()
    assert (
        "holds results with bundle 'finch' (sha256 abababab...), and now it is none"
    ) in str(refused.value)

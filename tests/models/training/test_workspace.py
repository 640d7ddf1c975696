"""Folders of a training: what --out may be, the lock, what is resumed."""

import fcntl
import os
import socket
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from neurovocal.engine.contracts.bundle import FrontEnd
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.models.data.annotations import Annotation
from neurovocal.models.data.datasets import AnnotatedRecording
from neurovocal.models.data.prepare import DatasetPlan
from neurovocal.models.data.soundness import Sound
from neurovocal.models.data.split.recordings import Split
from neurovocal.models.data.targets import Units
from neurovocal.models.toolkit.recipe import TrainConfig
from neurovocal.models.training.workspace import (
    TrainingJob,
    claim_work_folder,
    install_bundle,
    out_problems,
    with_real_out,
    work_folder,
)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "songs"
    folder.mkdir(parents=True)
    (folder / "a.wav").write_bytes(b"RIFF")
    return folder


def bundle(folder: Path, *more: str) -> Path:
    folder.mkdir()
    for name in ("manifest.yaml", "classifier.onnx", *more):
        (folder / name).write_text("version: 1\n")
    return folder


def problems(dataset: Path, out: Path, **options: Any) -> str:
    job = with_real_out(TrainingJob(dataset, out, **options))
    return "\n".join(out_problems(job))


@pytest.mark.parametrize("out", [".", "..", "../..", "../songs/", "link"])
def test_the_dataset_is_never_replaced(dataset: Path, out: str) -> None:
    (dataset / "link").symlink_to(dataset)
    (dataset / "manifest.yaml").write_text("version: 1\n")
    found = problems(dataset, dataset / out, overwrite=True)
    assert "would replace the dataset" in found


def test_a_dataset_among_checkpoints_is_never_removed(
    tmp_path: Path,
) -> None:
    inside = tmp_path / "b.partial" / "songs"
    inside.mkdir(parents=True)
    assert "would replace the dataset" in problems(inside, tmp_path / "b")


def test_the_bundle_that_is_read_is_never_replaced(dataset: Path) -> None:
    origin = bundle(dataset.parent / "old")
    link = dataset.parent / "link"
    link.symlink_to(origin)
    found = problems(dataset, link, overwrite=True, origin=str(origin))
    assert f"would replace the bundle of --from '{origin}'" in found


def test_files_that_are_no_part_of_a_bundle_are_kept(dataset: Path) -> None:
    old = bundle(dataset.parent / "old", "README.md", ".DS_Store")
    (old / "report").mkdir()
    assert "--overwrite" in problems(dataset, old)
    assert problems(dataset, old, overwrite=True) == ""
    (old / "diary.txt").write_text("mine")
    assert "diary.txt: move them" in problems(dataset, old, overwrite=True)


def test_a_folder_of_the_user_is_no_work_folder(dataset: Path) -> None:
    work = dataset.parent / "new.partial"
    work.mkdir()
    assert problems(dataset, dataset.parent / "new") == ""
    (work / "notes.txt").write_text("mine")
    assert "holds other files" in problems(dataset, dataset.parent / "new")


def test_checkpoints_without_their_fingerprint_can_be_given_up(dataset: Path) -> None:
    out, work = dataset.parent / "new", dataset.parent / "new.partial"
    work.mkdir()
    (work / "bundle").mkdir()
    assert "holds other files (bundle)" in problems(dataset, out, restart=True)
    (work / "classifier.pt").write_bytes(b"")
    assert problems(dataset, out) == (
        f"'{work}' holds an unfinished training without its file 'fingerprint', which "
        "says of what: add --restart to begin anew, or name another --out"
    )
    assert problems(dataset, out, restart=True) == ""
    (work / "notes.txt").write_text("mine")
    assert "holds other files (notes.txt)" in problems(dataset, out, restart=True)


def test_the_current_folder_is_never_replaced(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert "is the current folder" in problems(dataset, Path())


def hold_elsewhere(folder: Path) -> Any:
    """Take the lock as another process would."""
    status = folder.stat()
    if os.uname().sysname != "Linux":
        descriptor = os.open(folder, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return os.fdopen(descriptor)
    address = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    address.bind(f"\0neurovocal folder {status.st_dev} {status.st_ino}")
    return address


def test_a_second_training_of_one_folder_is_refused(dataset: Path) -> None:
    job = TrainingJob(dataset, dataset.parent / "b")
    job.work_path.mkdir()
    (job.work_path / "classifier.pt").write_bytes(b"first")
    with (
        hold_elsewhere(job.work_path),
        pytest.raises(ConfigError, match=r"another training writes to '.*b': wait"),
        work_folder(replace(job, restart=True)),
    ):
        pass
    assert (job.work_path / "classifier.pt").read_bytes() == b"first"
    with work_folder(job):  # the lock ended with its holder
        pass


def plan(test: list[AnnotatedRecording], unit: str = "a") -> DatasetPlan:
    part = [AnnotatedRecording("r", Path("r"), 9.0, 8000, (Annotation(1, 2, unit),))]
    front_end = FrontEnd(sample_rate=8000, hop_length=80, frame_length=160, n_bins=9)
    units = Units(["", unit], {unit: 1})
    return DatasetPlan(Split(part, part, test, ""), units, front_end, [])


def test_a_mended_test_recording_does_not_end_a_training(dataset: Path) -> None:
    job = TrainingJob(dataset, dataset.parent / "b")
    sounds = {"r": Sound("1", False)}
    extra = AnnotatedRecording("t", Path("t"), 5.0, 8000, ())
    with work_folder(job):
        claim_work_folder(job, TrainConfig(), plan([]), sounds)
        (job.work_path / "classifier.pt").write_bytes(b"trained")
    with work_folder(job):
        claim_work_folder(job, TrainConfig(), plan([extra]), sounds)
        for other in (plan([], "b"), plan([])):
            changed = (
                sounds if other.units.names[1] == "b" else {"r": Sound("2", False)}
            )
            with pytest.raises(ConfigError, match="another recipe or other data"):
                claim_work_folder(job, TrainConfig(), other, changed)


def test_a_bundle_replaces_the_old_one_and_nothing_beside_it(dataset: Path) -> None:
    out = bundle(dataset.parent / "b")
    mine = dataset.parent / "b.old"
    mine.mkdir()
    (mine / "keep.txt").write_text("mine")
    job = TrainingJob(dataset, out, overwrite=True)
    with ExitStack() as stack:
        stack.enter_context(work_folder(job))
        bundle(job.work_path / "bundle", "new.onnx")
        install_bundle(job)
    assert (out / "new.onnx").is_file()
    assert (mine / "keep.txt").is_file()
    assert not job.work_path.exists()

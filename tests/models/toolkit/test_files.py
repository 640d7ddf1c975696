"""Files that a training writes: complete, or unchanged with a sentence."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from neurovocal.models.toolkit.files import DiskError, write_file, write_npz
from neurovocal.models.toolkit.rows import StoredRows


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every synchronization fail as on a full disk."""

    def fails(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fails)


def test_a_full_disk_leaves_the_file_of_before(tmp_path: Path, full_disk: None) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"good")
    sentence = rf"'{path}' cannot be written: the disk is full \(No space"
    with pytest.raises(DiskError, match=sentence) as refused:
        write_file(path, b"new")
    assert refused.value.exit_code == 2
    assert path.read_bytes() == b"good"
    assert os.listdir(tmp_path) == ["checkpoint.pt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_frames_that_the_disk_does_not_take_are_one_sentence() -> None:
    with pytest.raises(DiskError, match="the disk is full"):
        StoredRows.write(Path("/dev/full"), np.ones((9000, 9), np.float32))


@pytest.mark.parametrize("n_frames", [0, 1, 1000])
def test_frames_are_read_as_they_were_written(tmp_path: Path, n_frames: int) -> None:
    frames = np.random.default_rng(0).normal(size=(n_frames, 7)).astype(np.float32)
    stored = StoredRows.write(tmp_path / "0.npy", frames)
    assert np.array_equal(np.load(tmp_path / "0.npy"), frames)
    assert np.array_equal(stored[:], frames)


def test_links_are_written_through(tmp_path: Path) -> None:
    target = tmp_path / "target.npz"
    target.write_bytes(b"old")
    link = tmp_path / "link.npz"
    link.symlink_to(target)
    write_npz(link, {"x": np.ones(3)})
    assert link.is_symlink()
    assert np.array_equal(np.load(target)["x"], np.ones(3))


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="gone/x' cannot be written: No such file"):
        write_file(tmp_path / "gone/x", b"")

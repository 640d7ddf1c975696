"""Files that are written whole: links stay, pipes and devices are written to."""

import os
import threading
from pathlib import Path

import pytest

from neurovocal.engine.support.outputs import folder_problem, followed, write_whole


def test_a_file_is_replaced_and_its_link_stays(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    write_whole(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path)) == ["link", "target"]


def test_a_link_to_a_missing_file_makes_it(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "target").read_bytes() == b"new"


def test_a_link_that_leads_to_itself_stays(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(link)
    with pytest.raises(OSError, match="leads to itself"):
        write_whole(link, b"new")
    assert link.is_symlink()


@pytest.mark.parametrize("name", ["", "."])
def test_an_empty_name_is_none(name: str) -> None:
    with pytest.raises(OSError, match="the name is empty"):
        followed(Path(name))


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_whole(pipe, b"x" * 100_000)
    reader.join()
    assert read == [b"x" * 100_000]
    assert pipe.is_fifo()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a device")
def test_a_device_is_written_to(tmp_path: Path) -> None:
    device = tmp_path / "null"
    try:
        os.mknod(device, 0o20666, os.stat("/dev/null").st_rdev)
    except PermissionError:
        pytest.skip("no device can be made here")
    try:
        write_whole(device, b"new")
    except PermissionError:
        pytest.skip("devices are not opened on this disk")
    assert device.is_char_device()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("new/below", None),
        ("", None),
        ("file", "'file' is a file"),
        ("file/below", "'file' is a file"),
        ("loop", "'loop' is a link that leads nowhere"),
        ("nowhere", "'nowhere' is a link that leads nowhere"),
        ("there", None),
    ],
)
def test_folders_that_cannot_be_made_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, problem: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("loop").symlink_to("loop")
    Path("nowhere").symlink_to("missing")
    Path("there").symlink_to(".")
    told = folder_problem(Path(name))
    assert (told or "").replace(f"{tmp_path}/", "") == (problem or "")

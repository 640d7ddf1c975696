"""Clips on disks that are full, unmounted or read-only: health reports it."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from processes.waiting import PROCESS_S
from repository import import_path
from stages.clip_sinks import EPOCH, INFO, QUICK, clips, play, segment, sink

from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.types import Event, Message
from neurovocal.engine.runtime.workers.mailbox import Mailbox
from neurovocal.engine.runtime.workers.sink_health import SinkHealth
from neurovocal.engine.runtime.workers.sink_worker import SinkWorker
from neurovocal.plugins.sinks.clips.sink import ClipsOptions, ClipsSink
from neurovocal.plugins.sinks.clips.store import ClipQuotas, ClipStore, QuotaError

NAME = Path("2026-01-01/cage/t_cage_s{:012d}.flac")


def name(number: int) -> Path:
    return Path(str(NAME).format(number))


def noise(seconds: float) -> Any:
    """Return audio that FLAC cannot compress."""
    rng = np.random.default_rng(1)
    return rng.uniform(-1, 1, (round(seconds * 1000), 1)).astype(np.float32)


def three(first: int = 0) -> list[Event]:
    return [
        event
        for i in range(3)
        for event in segment(first + i, 1000 + 1500 * i, 2000 + 1500 * i)
    ]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """File system of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_refuses_clips_until_there_is_room(small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(bytes(60_000))
    target = sink(small_disk)
    target.open()
    play(target, noise(8), three())
    assert target.stats()["clips"] == 0
    assert target.stats()["refused"] == 3
    assert target.trouble is not None
    assert "No space left" in target.trouble
    assert "labels go on" in target.trouble
    assert target.end_stream(INFO.stream) is False  # the recording is heard again
    assert not [p for p in (small_disk / "clips").rglob("*") if p.is_file()]
    (small_disk / "ballast").unlink()
    target.close()
    play(target, noise(8), three())
    target.close()
    assert target.stats()["clips"] == 3
    assert target.trouble is None
    assert len(clips(small_disk)) == 3


def test_trouble_clears_without_a_clip_when_there_is_room(small_disk: Path) -> None:
    clock = ManualClock(EPOCH)
    options = ClipsOptions(path=str(small_disk / "clips"), **QUICK)
    target = ClipsSink(options, "run1", clock)
    target.open()
    (small_disk / "ballast").write_bytes(bytes(60_000))
    play(target, noise(3.5), segment(0, 1000, 2000))
    assert target.trouble
    (small_disk / "ballast").unlink()
    clock.advance(6)
    play(target, noise(0.2), [])
    assert target.trouble is None


def test_min_free_mb_is_kept_free(tmp_path: Path) -> None:
    free = [3_000_000]
    store = ClipStore(
        tmp_path / "clips", ClipQuotas(min_free_bytes=2_000_000), lambda folder: free[0]
    )
    store.open()
    store.write(name(1), bytes(500_000), b"{}")
    with pytest.raises(QuotaError, match=r"only 3.0 MB are free .* \(min_free_mb: 2\)"):
        store.write(name(2), bytes(1_500_000), b"{}")
    free[0] = 1_000_000
    with pytest.raises(QuotaError):
        store.probe()


def test_file_size_limit_leaves_no_partial_clip(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    target = sink(tmp_path)
    target.open()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        play(target, noise(4), segment(0, 1000, 2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert "File too large" in str(target.trouble)
    assert not [p for p in (tmp_path / "clips").rglob("*") if p.is_file()]
    play(target, noise(4), [])


def test_deleted_folder_is_reported_and_made_again(tmp_path: Path) -> None:
    clock = ManualClock(EPOCH)
    options = ClipsOptions(path=str(tmp_path / "clips"), **QUICK)
    target = ClipsSink(options, "run1", clock)
    target.open()
    play(target, noise(4), segment(0, 1000, 2000))
    target.close()
    shutil.rmtree(tmp_path / "clips")
    play(target, noise(4), segment(0, 1000, 2000))
    assert len(clips(tmp_path)) == 1
    assert target.stats()["files"] == 1
    assert "was deleted, with its clips, and made again" in str(target.trouble)
    target.close()
    clock.advance(6)
    play(target, noise(0.2), [])
    assert target.trouble is None


AS_ANOTHER_USER = """
import os, sys
from pathlib import Path
sys.path[:0] = sys.argv[1].split(":")
import soundfile
from test_disk import noise, play, segment, sink
if os.geteuid() == 0:
    os.setegid(65534)
    os.seteuid(65534)
folder = Path(sys.argv[2])
target = sink(folder)
target.open()
os.chmod(folder / "clips", 0o500)
play(target, noise(4), segment(0, 1000, 2000))
assert "Permission denied" in target.trouble, target.trouble
os.chmod(folder / "clips", 0o700)
target.close()
play(target, noise(4), segment(0, 1000, 2000))
assert target.trouble is None
assert target.stats()["clips"] == 1
print("refused, then taken")
"""


def test_unwritable_folder_is_reported_and_retried() -> None:
    # Root may write anywhere: the process under test has another user.
    with TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        arguments = ["-c", AS_ANOTHER_USER, import_path(__file__), folder]
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            timeout=PROCESS_S,
        )
    assert done.stdout == "refused, then taken\n", done.stderr


def test_read_only_disk_is_reported_at_open(small_disk: Path) -> None:
    remount = ["mount", "-o", "remount,ro", str(small_disk)]
    subprocess.run(remount, check=True)
    with pytest.raises(ConfigError, match="Read-only file system"):
        sink(small_disk).open()


def test_oldest_clips_are_removed_first(tmp_path: Path) -> None:
    store = ClipStore(tmp_path, ClipQuotas(max_files=2))
    store.open()
    (tmp_path / "2026-01-01").mkdir()
    mine = tmp_path / "2026-01-01" / "my notes.wav"
    mine.write_bytes(b"not a clip of ours")
    for number in range(4):
        store.write(name(number), b"x" * 10, b"{}")
    assert store.removed == 2
    kept = {p.name for p in (tmp_path / name(0)).parent.iterdir()}
    assert kept == {
        name(i).with_suffix(end).name for i in (2, 3) for end in (".flac", ".json")
    }
    assert mine.exists()
    again = ClipStore(tmp_path, ClipQuotas(max_bytes=30))
    again.open()
    assert (again.files, again.size) == (2, 24)
    again.write(name(9), b"x" * 10, b"{}")
    assert not (tmp_path / name(2)).exists()
    assert (again.files, again.size) == (2, 24)
    with pytest.raises(QuotaError, match="more than max_mb"):
        again.write(name(10), bytes(40), b"{}")


def test_full_quota_stops_clips_until_files_are_removed(tmp_path: Path) -> None:
    clock = ManualClock(EPOCH)
    limits = {"max_files": 2, "when_full": "stop"}
    options = ClipsOptions(path=str(tmp_path / "clips"), **QUICK, **limits)
    target = ClipsSink(options, "run1", clock)
    target.open()
    play(target, noise(8), three())
    assert len(clips(tmp_path)) == 2
    assert "holds 2 clips (max_files)" in str(target.trouble)
    target.close()
    for path in (tmp_path / "clips").rglob("*_s*"):
        path.unlink()
    clock.advance(6)
    play(target, noise(8), three())
    assert len(clips(tmp_path)) == target.stats()["files"] == 2


def test_unfinished_clips_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    folder = (tmp_path / name(0)).parent
    folder.mkdir(parents=True)
    part = folder / ".t_cage_s000000000001.flac.part"
    part.write_bytes(b"half")
    store = ClipStore(tmp_path, ClipQuotas())
    store.open()
    assert not part.exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from neurovocal.plugins.sinks.clips.store import ClipStore, ClipQuotas

store, left = ClipStore(Path(sys.argv[1]), ClipQuotas()), int(sys.argv[3])
rename = Path.rename

def dying(path, target):
    global left
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return rename(path, target)

Path.rename = dying
store.open()
store.write(Path(sys.argv[2]), b"audio", b"sidecar")
"""


@pytest.mark.parametrize(("renames", "left"), [(0, []), (1, ["flac", "json"])])
def test_kill_between_two_renames_leaves_a_complete_clip_or_none(
    tmp_path: Path, renames: int, left: list[str]
) -> None:
    where = [str(tmp_path), str(name(1)), str(renames)]
    done = subprocess.run([sys.executable, "-c", KILLED, *where], timeout=PROCESS_S)
    assert done.returncode == -signal.SIGKILL
    store = ClipStore(tmp_path, ClipQuotas())
    store.open()
    found = sorted((tmp_path / name(1)).parent.iterdir())
    assert found == [tmp_path / name(1).with_suffix(f".{end}") for end in left]
    assert store.files == bool(left)


def test_health_reports_that_no_clips_are_written(tmp_path: Path) -> None:
    target = sink(tmp_path, max_files=1, when_full="stop")
    mailbox: Mailbox[Message] = Mailbox({"events": 9, "bulk": 9}, "block")
    worker = SinkWorker(
        "sink 'clips'", target, target.wants, mailbox, "restart", ManualClock(EPOCH)
    )
    health = SinkHealth([worker])
    target.open()
    assert list(health.changes()) == []
    play(target, noise(8), three())
    [told] = health.changes()
    assert told.state == "lossy"
    assert "labels go on" in told.detail
    assert INFO.stream not in told.detail

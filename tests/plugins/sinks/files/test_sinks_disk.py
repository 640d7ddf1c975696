"""All sinks that write files, on disks that fail: no message is lost in silence."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from processes.cli_process import RECORDING, neurovocal
from processes.failing_disks import KINDS, Kind, deliver, no_file_above, ready
from processes.waiting import PROCESS_S
from repository import import_path

from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import ConfigError, NeurovocalError
from neurovocal.engine.contracts.types import Message
from neurovocal.engine.journal import read_events
from neurovocal.engine.runtime.workers.mailbox import Mailbox
from neurovocal.engine.runtime.workers.sink_health import SinkHealth
from neurovocal.engine.runtime.workers.sink_worker import SinkWorker
from neurovocal.engine.testing import CollectSink
from neurovocal.plugins.sinks.columns import parquet as parquet_file
from neurovocal.plugins.storage.folder import OutputFolder
from neurovocal.plugins.storage.text_file import TextOutput
from neurovocal.plugins.storage.wave_file import FloatWave


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kind:
    return ready(request.param, monkeypatch)


def sizes(folder: Path) -> int:
    return max((p.stat().st_size for p in folder.rglob("*") if p.is_file()), default=0)


def test_deleted_folder_is_reported_and_made_again(kind: Kind, tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    sink = kind.build(folder)
    sink.open()
    sink.write(kind.give(0))
    sink.flush(1.0)
    shutil.rmtree(folder)
    with pytest.raises(NeurovocalError, match="deleted"):
        sink.write(kind.give(1))
    for number in (1, 2):
        deliver(sink, kind.give(number))
    sink.close()
    assert kind.kept(folder) == [1, 2]


def test_replaced_file_is_reported(kind: Kind, tmp_path: Path) -> None:
    sink = kind.build(tmp_path)
    sink.open()
    sink.write(kind.give(0))
    sink.flush(1.0)
    for path in list(tmp_path.rglob("*")):
        if path.is_file():
            path.rename(path.with_name(f"{path.name}.old"))
    with pytest.raises(NeurovocalError, match="removed or replaced"):
        sink.write(kind.give(1))
    deliver(sink, kind.give(1))
    sink.close()
    assert kind.kept(tmp_path) == [1]


@pytest.mark.parametrize("room", [0, 1, 17, 150, 399])
def test_full_disk_takes_a_message_as_a_whole_or_not_at_all(
    kind: Kind, tmp_path: Path, room: int
) -> None:
    sink = kind.build(tmp_path)
    sink.open()
    for number in range(3):
        sink.write(kind.give(number))
    sink.flush(1.0)
    refused = []
    with no_file_above(sizes(tmp_path) + room):
        for number in range(3, 25):
            give = deliver if refused else lambda s, m: s.write(m)
            try:
                give(sink, kind.give(number))
            except NeurovocalError as error:
                refused.append(str(error))
    assert refused
    assert all("cannot be written" in sentence for sentence in refused)
    deliver(sink, kind.give(25))
    sink.close()
    kept = kind.kept(tmp_path)
    assert len(kept) == len(set(kept)) == 26 - len(refused)
    assert kept[-1] == 25
    assert not list(tmp_path.rglob("*.part"))


AS_ANOTHER_USER = """
import os, sys
from pathlib import Path
sys.path[:0] = sys.argv[1].split(":")
from processes.failing_disks import KINDS, deliver, use_small_batches
from neurovocal.engine.contracts.errors import NeurovocalError
kinds = [k for k in KINDS if k.name != "parquet" or sys.argv[3] == "parquet"]
use_small_batches(1)
for kind in kinds:  # modules that the other user may not read
    folder = Path(sys.argv[2]) / "warm"
    folder.mkdir(exist_ok=True)
    sink = kind.build(folder)
    sink.open()
    sink.write(kind.give(0))
    sink.close()
    kind.kept(folder)
if os.geteuid() == 0:
    os.setegid(65534)
    os.seteuid(65534)
folder = Path(sys.argv[2]) / "disk"
for kind in kinds:
    folder.mkdir(exist_ok=True)
    sink = kind.build(folder)
    sink.open()
    sink.write(kind.give(0))
    sink.flush(1.0)
    folder.chmod(0)
    try:
        sink.write(kind.give(1))
        said = "nothing"
    except NeurovocalError as error:
        said = str(error)
    assert "ermission denied" in said, (kind.name, said)
    try:
        deliver(sink, kind.give(1))
        said = "nothing"
    except NeurovocalError as error:
        said = str(error)
    assert "cannot be" in said, (kind.name, said)
    folder.chmod(0o700)
    deliver(sink, kind.give(2))
    sink.close()
    assert kind.kept(folder) == [0, 2], (kind.name, kind.kept(folder))
print("refused, then taken")
"""


def test_revoked_permission_is_reported_and_retried() -> None:
    # Root may write anywhere: the process under test has another user.
    parquet = "" if list(parquet_file.parquet_problems()) else "parquet"
    with TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        where = [import_path(__file__), folder, parquet]
        done = subprocess.run(
            [sys.executable, "-c", AS_ANOTHER_USER, *where],
            capture_output=True,
            text=True,
            timeout=PROCESS_S,
        )
    assert done.stdout == "refused, then taken\n", done.stderr


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """Disk that can be unmounted; a second mount keeps its files."""
    keeper, folder = tmp_path / "keeper", tmp_path / "disk"
    keeper.mkdir()
    folder.mkdir()
    mounts = [["-t", "tmpfs", "-o", "size=8m", "tmpfs", str(keeper)]]
    mounts.append(["--bind", str(keeper), str(folder)])
    for mount in mounts:
        done = subprocess.run(["mount", *mount], capture_output=True, check=False)
        if done.returncode:
            pytest.skip("only root may mount a file system")
    yield folder
    for path in (folder, keeper):
        subprocess.run(["umount", "-l", str(path)], capture_output=True, check=False)


def test_nothing_is_written_below_an_unmounted_disk(
    kind: Kind, mounted: Path, tmp_path: Path
) -> None:
    folder = mounted / "deep" / "out"
    folder.mkdir(parents=True)
    sink = kind.build(folder)
    sink.open()
    sink.write(kind.give(0))
    sink.flush(1.0)
    subprocess.run(["umount", "-l", str(mounted)], check=True)
    with pytest.raises(NeurovocalError, match=f"'{mounted}' is no longer mounted"):
        sink.write(kind.give(1))
    with pytest.raises(ConfigError, match="no longer mounted"):
        deliver(sink, kind.give(1))
    assert not list(mounted.iterdir())
    subprocess.run(["mount", "--bind", tmp_path / "keeper", mounted], check=True)
    deliver(sink, kind.give(2))
    sink.close()
    assert kind.kept(folder) == [0, 2]


def test_mount_point_of_an_unmounted_disk_is_not_used(mounted: Path) -> None:
    place = OutputFolder(mounted / "clips", make=True)
    place.ensure()
    subprocess.run(["umount", str(mounted)], check=True)
    with pytest.raises(OSError, match="no longer mounted"):
        place.ensure()
    assert not (mounted / "clips").exists()


def test_missing_folder_is_made_only_if_requested(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="does not exist"):
        OutputFolder(tmp_path / "none").ensure()
    OutputFolder(tmp_path / "some" / "where", make=True).ensure()
    assert (tmp_path / "some" / "where").is_dir()


def test_replacement_of_a_hung_sink_keeps_its_files(kind: Kind, tmp_path: Path) -> None:
    hung = kind.build(tmp_path)
    hung.open()
    hung.write(kind.give(0))
    hung.flush(1.0)
    new = kind.build(tmp_path, replaces_failed=True)
    new.open()
    new.write(kind.give(1))
    hung.close()  # it has returned at last
    new.write(kind.give(2))
    new.close()
    if kind.name in ("wav", "recording"):  # sound has a file for each of the two
        left = tmp_path / kind.path / "cage.1.left.wav"
        samples, _ = soundfile.read(left, dtype="float32")
        assert (samples == 1).all()
        assert len(samples) == 100
        assert kind.kept(tmp_path) == [1, 2]
    else:
        assert kind.kept(tmp_path) == [0, 1, 2]


def test_run_appends_to_the_file_of_a_hung_sink(tmp_path: Path) -> None:
    samples, rate = soundfile.read(RECORDING, frames=5 * 32_000)
    soundfile.write(tmp_path / "song.wav", samples, rate)
    (tmp_path / "c.yaml").write_text("""
version: 1
station: cage
source: {plugin: playback, options: {path: song.wav}}
supervise: {hang_s: 0.8}
faults:
  - {fault: hang, at_s: 2, for_s: 1.5, stage: jsonl}
sinks:
  - {plugin: journal, options: {path: j.sqlite}}
  - {plugin: jsonl, options: {path: e.jsonl}}
""")
    done = neurovocal("run", "c.yaml", cwd=tmp_path)
    assert "has not returned" in done.err
    wanted = ("onset", "offset")
    told = [
        (e.kind, e.seq) for e in read_events(tmp_path / "j.sqlite") if e.kind in wanted
    ]
    lines = map(json.loads, (tmp_path / "e.jsonl").read_text().splitlines())
    found = [(line["kind"], line["seq"]) for line in lines]
    # The message that hung may come late, behind others; it was counted as lost.
    assert len(found) == len(set(found))
    assert len(set(told) - set(found)) <= 1
    assert len(told) > 20


def test_line_after_a_truncated_one_is_readable(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_text('{"kind":"label","s')  # as a loss of power leaves it
    output = TextOutput(str(path), existing="append")
    output.open()
    output.write("whole\n")
    output.close()
    assert path.read_text().splitlines()[1:] == ["whole"]


@settings(max_examples=40, deadline=None)
@given(
    pieces=st.lists(
        st.tuples(st.integers(0, 60), st.integers(0, 40), st.integers(0, 200)),
        min_size=1,
        max_size=8,
    )
)
def test_wave_file_is_readable_after_every_write(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[int, int, int]]
) -> None:
    """The file has exactly the samples that a full disk took, and can be read."""
    path = tmp_path_factory.mktemp("wave") / "x.wav"
    wave = FloatWave(path, 8000)
    assert wave.open()
    expected = np.zeros(0, np.float32)
    for number, (start, count, room) in enumerate(pieces):
        samples = np.full(count, number + 1.0, np.float32)
        try:
            with no_file_above(path.stat().st_size + room):
                wave.write(start, samples)
        except OSError:
            wave.release()  # as the program does when it is killed
            assert not wave.open()
        else:
            longer = max(len(expected), start + count)
            expected = np.pad(expected, (0, longer - len(expected)))
            expected[start : start + count] = samples
        wave.flush()
        found, rate = soundfile.read(path, dtype="float32")
        assert rate == 8000
        assert np.array_equal(found, expected)


def test_recording_without_timeline_is_set_aside(tmp_path: Path) -> None:
    (kind,) = [k for k in KINDS if k.name == "recording"]
    sink = kind.build(tmp_path)
    sink.open()
    sink.write(kind.give(0))
    sink.close()
    (tmp_path / "r" / "cage.jsonl").unlink()
    sink.open()
    sink.write(kind.give(1))
    sink.close()
    assert kind.kept(tmp_path) == [1]
    samples, _ = soundfile.read(tmp_path / "r" / "cage.1.left.wav")
    assert len(samples) == 100


class FailsOnce(CollectSink):
    """Refuses the first message."""

    refused = False

    def write(self, message: Message) -> None:
        if not self.refused:
            self.refused = True
            raise OSError("the disk is full")
        super().write(message)


def test_failure_between_two_health_checks_is_reported() -> None:
    sink, clock = FailsOnce(), ManualClock()
    mailbox: Mailbox[Message] = Mailbox({"events": 9, "bulk": 9}, "drop_oldest")
    worker = SinkWorker("disk", sink, frozenset({"label"}), mailbox, "skip", clock)
    health = SinkHealth([worker])
    assert list(health.changes()) == []
    worker.open()
    for number in range(3):
        worker.accept(KINDS[0].give(number))
    assert worker.drain(100, hurry=False)
    assert [(h.state, h.detail) for h in health.changes()] == [
        ("restarting", "the disk is full; it goes on"),
        ("healthy", "it works again; 1 messages were lost"),
    ]
    assert list(health.changes()) == []
    assert [m.seq for m in sink.messages] == [1, 2]


def test_killed_program_leaves_a_readable_wave_file(tmp_path: Path) -> None:
    wave = FloatWave(tmp_path / "x.wav", 1000)
    wave.open()
    for start in range(0, 2500, 100):
        wave.write(start, np.full(100, start + 1, np.float32))
    wave.release()  # nothing was finished
    found, _ = soundfile.read(tmp_path / "x.wav", dtype="float32")
    assert 1500 <= len(found) <= 2500
    assert found[-1] == len(found) - 100 + 1

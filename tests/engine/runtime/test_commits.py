"""Recordings of a folder count as taken once all sinks have kept their events."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event as Flag

import pytest
import soundfile
from processes.cli_process import RECORDING, neurovocal, running
from processes.failing_disks import INFO, label
from processes.waiting import PATIENCE_S, PROCESS_S, until

from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.errors import StageError
from neurovocal.engine.contracts.types import StreamEnd
from neurovocal.engine.journal import read_events, runs
from neurovocal.engine.runtime.workers.mailbox import Mailbox
from neurovocal.engine.runtime.workers.sink_worker import Item, SinkWorker
from neurovocal.engine.runtime.workers.stream_commit import StreamCommit
from neurovocal.engine.testing.signals import song


class BufferingSink:
    """Keeps messages in memory until it commits; its disk may be full."""

    def __init__(self, *, n_failures: int = 0) -> None:
        self.n_failures = n_failures
        self.buffered: list[object] = []
        self.kept: list[object] = []
        self.ended: list[str] = []
        self.committed = Flag()

    @property
    def uncommitted(self) -> int:
        return len(self.buffered)

    def open(self) -> None:
        pass

    def write(self, message: object) -> None:
        self.buffered.append(message)

    def end_stream(self, stream: str) -> None:
        self.ended.append(stream)

    def commit(self) -> None:
        if self.n_failures:
            self.n_failures -= 1
            raise StageError("no space left")
        self.kept += self.buffered
        self.buffered.clear()
        self.committed.set()

    def flush(self, timeout: float) -> None:
        pass

    def close(self) -> None:
        if self.n_failures:
            raise StageError("no space left")


def run(sink: BufferingSink, on_error: str) -> tuple[SinkWorker, StreamCommit]:
    mailbox: Mailbox[Item] = Mailbox({"events": 99, "bulk": 9}, "block")
    wants = frozenset({"label"})
    clock = SystemClock()
    worker = SinkWorker("sink 'x'", sink, wants, mailbox, on_error, clock)  # type: ignore[arg-type]
    worker.open()
    for number in range(3):
        worker.accept(label(number))
    commit = StreamCommit(StreamEnd(), [INFO.stream], [worker])
    worker.accept_end(commit)
    if on_error == "restart":
        assert sink.committed.wait(PATIENCE_S)
    worker.drain(30, hurry=False)
    worker.close()
    return worker, commit


@pytest.mark.parametrize(("n_failures", "on_error"), [(0, "fail"), (2, "restart")])
def test_a_stream_is_kept_when_the_sink_has_committed_it(
    n_failures: int, on_error: str
) -> None:
    sink = BufferingSink(n_failures=n_failures)
    worker, commit = run(sink, on_error)
    assert (commit.is_done, commit.kept) == (True, True)
    assert len(sink.kept) == 3
    assert INFO.stream in sink.ended
    assert not worker.mailbox.dropped


@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_messages_that_a_sink_took_and_could_not_commit_are_counted_once(
    on_error: str,
) -> None:
    sink = BufferingSink(n_failures=99)
    worker, commit = run(sink, on_error)
    assert not (commit.is_done and commit.kept)
    assert worker.mailbox.dropped == {"label": 3}
    counts = worker.mailbox.counts()["events"]
    assert counts["received"] == counts["delivered"] + counts["dropped"]


def test_the_end_of_a_recording_is_known_though_none_follows(tmp_path: Path) -> None:
    """The last call touches the end; the power fails when it counts as taken."""
    folder = tmp_path / "d"
    folder.mkdir()
    samples = song(8000, 3.0)[:, 0]
    samples[-2000:] = 0.5 * samples[:2000] + 0.3
    soundfile.write(folder / "a.wav", samples, 8000)
    config = tmp_path / "c.yaml"
    options = "path: d, settle_s: 0.1, poll_s: 0.1, confirm_s: 0"
    config.write_text(
        f"version: 1\nsource: {{plugin: folder, options: {{{options}}}}}\n"
        "sinks:\n"
        "  - {plugin: jsonl, options: {path: t.jsonl}}\n"
        "  - {plugin: clips, options: {path: clips, min_free_mb: 0}}\n"
    )
    state = folder / ".neurovocal-taken.jsonl"
    with running("run", config, "--json", cwd=tmp_path) as engine:
        while engine.poll() is None:
            if state.exists() and '"taken"' in state.read_text():
                engine.kill()
                engine.wait()
    events = [
        json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()
    ]
    onsets = [e["segment"] for e in events if e["kind"] == "onset"]
    offsets = [e["segment"] for e in events if e["kind"] == "offset"]
    assert onsets == offsets
    assert len(list((tmp_path / "clips").rglob("*.flac"))) == len(offsets) > 0


def test_clips_that_were_not_written_are_a_loss(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(
        f"version: 1\nsource: {{plugin: file, options: {{path: '{RECORDING}'}}}}\n"
        "sinks:\n"
        "  - plugin: clips\n"
        "    options: {path: clips, max_files: 2, when_full: stop, min_free_mb: 0}\n"
    )
    done = neurovocal("run", config, cwd=tmp_path)
    assert done.code == 3
    assert "clips could not be written to 'clips'" in done.err


def test_a_table_that_ctrl_c_cut_short_is_called_partial(tmp_path: Path) -> None:
    for number in range(60):
        (tmp_path / f"{number}.flac").symlink_to(RECORDING)
    table = tmp_path / "t.csv"
    with running("detect", ".", "--out", "t.csv", cwd=tmp_path) as command:
        until(lambda: table.exists() and table.stat().st_size >= 1000)
        command.send_signal(signal.SIGINT)
        _, err = command.communicate()
    assert command.returncode == 3
    assert "stopped: 't.csv' is partial (" in err
    done = neurovocal("detect", "1.flac", "--out", "new.csv", cwd=tmp_path)
    rows = len((tmp_path / "new.csv").read_text().splitlines()) - 1
    assert f"wrote {rows} rows of 1 recording to 'new.csv'" in done.err


@pytest.mark.parametrize(
    ("limit", "is_taken"),
    [("min_free_mb: 1000000000", False), ("max_files: 1, when_full: stop", True)],
)
def test_a_recording_is_heard_again_if_the_disk_took_not_all_of_its_clips(
    tmp_path: Path, limit: str, is_taken: bool
) -> None:
    (tmp_path / "d").mkdir()
    soundfile.write(tmp_path / "d" / "a.wav", song(8000, 3.0)[:, 0], 8000)
    options = "path: d, follow: false, settle_s: 0, poll_s: 0.1, confirm_s: 0"
    (tmp_path / "c.yaml").write_text(
        f"version: 1\nsource: {{plugin: folder, options: {{{options}}}}}\n"
        f"sinks: [{{plugin: clips, options: {{path: clips, {limit}}}}}]\n"
    )
    done = neurovocal("run", "c.yaml", cwd=tmp_path)
    assert done.code == 3
    state = (tmp_path / "d" / ".neurovocal-taken.jsonl").read_text()
    assert ('"taken"' in state) is is_taken
    again = neurovocal("run", "c.yaml", cwd=tmp_path)
    assert ("is heard again, whole" in again.err) is not is_taken


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)
from neurovocal.engine.cli import main
main()
"""


def test_recordings_whose_events_a_full_disk_refused_are_heard_again(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "card"
    folder.mkdir()
    samples = song(8000, 1.0)[:, 0]
    recordings = {f"{number:02}.wav" for number in range(20)}
    for name in recordings:
        soundfile.write(folder / name, samples, 8000)
    config = tmp_path / "c.yaml"
    options = "{path: card, follow: false, settle_s: 0, confirm_s: 0}"
    config.write_text(
        f"version: 1\nsource: {{plugin: folder, options: {options}}}\n"
        "sinks:\n"
        "  - plugin: journal\n"
        "    on_error: skip\n"
        "    options: {path: j.sqlite, commit_ms: 0}\n"
    )

    def outcome() -> tuple[set[str], set[str]]:
        """Return the recordings that count as taken, and those in the journal."""
        lines = (folder / ".neurovocal-taken.jsonl").read_text().splitlines()
        entries = map(json.loads, lines)
        taken = {e["file"] for e in entries if e["verdict"] == "taken"}
        path = tmp_path / "j.sqlite"
        events = [e for record in runs(path) for e in read_events(path, record.run)]
        return taken, {event.stream for event in events if event.kind == "offset"}

    full = subprocess.run(
        [sys.executable, "-c", LIMITED, "400000", "run", str(config)],
        cwd=tmp_path,
        capture_output=True,
        timeout=PROCESS_S,
        check=False,
    )
    assert full.returncode in (2, 3), full.stderr
    taken, kept = outcome()
    assert taken <= kept
    assert taken < recordings
    assert neurovocal("run", config, cwd=tmp_path).code == 0
    assert outcome() == (recordings, recordings)

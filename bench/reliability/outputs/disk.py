"""Disk failures under a running engine: ``make bench-disk``.

An engine (its own process) labels in real time and publishes to a subscriber, while a
journal, tables, lines of JSON, clips, sound and a recording go to a small disk: full,
read-only, its folder deleted, without permission, unmounted. Every label must reach the
subscriber; `health` must report each sink that fails, the reason, and the
recovery; the messages that the files lack in the end must equal the counted losses, and
all files must be complete.

    .venv/bin/python bench/reliability/outputs/disk.py

The file systems are mounted in a namespace of the program's own (`unshare`); a disk
that turns read-only needs root, the others do not. The engine runs without the
capabilities of root, which would ignore permissions (`setpriv`).
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import Any

from disk_audit import SONG, SinkAudit, audit
from disk_faults import DISKS, Disk
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torture import ENGINE, free_port

from neurovocal.engine.client import Received, Subscriber
from neurovocal.engine.contracts.types import Health, Stats

SOUND_S, PATIENCE_S = 5.0, 60.0
KINDS = ("onset", "offset", "label", "health", "stats", "audio")
# The queue of the `jsonl` sink is so short that an outage fills it.
CONFIG = """
version: 1
station: disk
source: {{plugin: synthetic, options: {{pace: realtime, duration_s: null, seed: {seed},
         pause_ms: {pause_ms}, song_length: {song_length}}}}}
bundle: bengalese-finch
models:
  - {{plugin: classifier}}
  - {{plugin: rnn_rbm, options: {{synthesis: free, sound: true}}}}
sinks:
  - {{plugin: zmq, options: {{endpoint: "tcp://127.0.0.1:{port}"}},
     events: [onset, offset, label, health, stats, audio],
     queue: {{bulk: 9999, when_full: drop_oldest}}}}
  - {{plugin: journal, options: {{path: {out}/j.sqlite}}, {live}}}
  - {{plugin: jsonl, options: {{path: {out}/e.jsonl}}, on_error: restart,
     queue: {{events: 64, when_full: drop_oldest}}}}
  - {{plugin: columns, options: {{path: {out}/l.csv}}, {live}}}
  - {{plugin: columns, options: {{path: {out}/l.parquet, format: parquet}}, {live}}}
  - {{plugin: table, options: {{path: {out}/t.csv}}, {live}}}
  - {{plugin: clips, options: {{path: {out}/clips, min_free_mb: 0, pre_roll_s: 0.1,
     post_roll_s: 0.1, longest_s: 2}}, {live}}}
  - {{plugin: wav, options: {{path: {out}/w}}, {live}}}
  - {{plugin: recording, options: {{path: {out}/r}}, {live}}}
"""
LIVE = "on_error: restart, queue: {when_full: drop_oldest}"
# These must meet the failure; on a full disk the last page of a small table may have
# room for what comes.
WRITING = ("journal", "jsonl", "clips", "wav", "recording")
INSIDE = "NEUROVOCAL_OWN_MOUNTS"


@dataclass
class HealthReport:
    """Failure of a sink as reported by `health`: time, reason, time of recovery."""

    reported_s: float
    why: str
    recovered_s: float | None = None


@dataclass
class Result:
    """Losses of one failure."""

    labels: int = 0
    holes: int = 0
    reports: dict[str, HealthReport] = field(default_factory=dict)
    audits: list[SinkAudit] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class EventRecorder:
    """Subscriber in a thread of its own that keeps every message."""

    def __init__(self, endpoint: str) -> None:
        self.received: list[tuple[float, Received]] = []
        self.stop = Flag()
        self._endpoint = endpoint
        self._thread = Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        with Subscriber(self._endpoint, KINDS, timeout=0.2) as subscriber:
            while not self.stop.is_set():
                for message in subscriber:
                    self.received.append((time.monotonic(), message))

    def end(self) -> list[Received]:
        """Stop; return all messages but repeated statistics."""
        self.stop.set()
        self._thread.join()
        return [m for _, m in self.received]


def main() -> int:
    """Run all failures; 0 if every loss was counted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", help="some of: " + ", ".join(d.name for d in DISKS))
    parser.add_argument("--seconds", type=float, default=8.0, help="of each outage")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if INSIDE not in os.environ:
        return _in_own_mounts()
    console = Console(stderr=True)
    wanted = [d for d in DISKS if not arguments.only or d.name in arguments.only]
    results: dict[str, Result | None] = {}
    with Progress(console=console, transient=True) as progress:
        for disk in progress.track(wanted, description="breaking disks"):
            if disk.root_only and os.environ[INSIDE] != "root":
                results[disk.name] = None
                continue
            with tempfile.TemporaryDirectory() as folder:
                results[disk.name] = outage(
                    disk, Path(folder), arguments.seconds, arguments.seed
                )
    Console(width=150).print(_table(results))
    for name, result in results.items():
        for problem in result.problems if result else ():
            print(f"{name}: {problem}", file=sys.stderr)
    return 2 if any(r is not None and r.problems for r in results.values()) else 0


def _in_own_mounts() -> int:
    """Start this program again in a mount namespace of its own."""
    root = os.geteuid() == 0
    own = ["--mount", "--propagation", "private"] if root else ["-rm"]
    environment = {**os.environ, INSIDE: "root" if root else "user"}
    command = ["unshare", *own, sys.executable, *sys.argv]
    return subprocess.run(command, env=environment, check=False).returncode


def outage(kind: type[Disk], folder: Path, seconds: float, seed: int) -> Result:
    """Run one engine with one disk and one failure."""
    disk = kind(folder)
    try:
        return _run_outage(disk, folder, seconds, seed)
    finally:
        disk.remove()


def _run_outage(disk: Disk, folder: Path, seconds: float, seed: int) -> Result:
    """Run the engine, fail and repair the disk, and audit the files."""
    result = Result()
    port = free_port()
    config = folder / "config.yaml"
    config.write_text(
        CONFIG.format(seed=seed, port=port, out=disk.out, live=LIVE, **SONG)
    )
    log = folder / "log"
    recorder = EventRecorder(f"tcp://127.0.0.1:{port}")
    command = ["setpriv", "--inh-caps=-all", "--bounding-set=-all", sys.executable]
    with log.open("w") as said:
        engine = subprocess.Popen(
            [*command, "-c", ENGINE, "run", str(config)],
            stdout=subprocess.DEVNULL,
            stderr=said,
        )
        disk.process = engine
        try:
            _wait(lambda: _count(recorder, "label") > 10, engine, "no label came")
            time.sleep(SOUND_S)
            failed_at = time.monotonic()
            disk.fail()
            time.sleep(seconds)
            disk.repair()
            repaired_at = time.monotonic()
            _wait(lambda: not _unrecovered(recorder, failed_at), engine, "")
            time.sleep(SOUND_S)
            engine.send_signal(signal.SIGTERM)
            engine.wait(PATIENCE_S)
        except (TimeoutError, subprocess.SubprocessError) as error:
            engine.kill()
            engine.wait()
            tail = log.read_text()[-2000:]
            result.problems.append(f"{error}; the engine said: {tail}")
            return result
        finally:
            received = recorder.end()
            if engine.poll() is None:
                engine.kill()
                engine.wait()
    result.reports = _reports(recorder, failed_at, repaired_at)
    _compare(disk, received, result, seed)
    if result.problems and (keep := os.environ.get("KEEP")):
        shutil.copytree(disk.mount, keep, dirs_exist_ok=True)
        shutil.copy(log, keep)
    return result


def _compare(disk: Disk, received: list[Received], result: Result, seed: int) -> None:
    """Compare files, reports and counted losses; add problems to `result`."""
    labels = [m for m in received if m.kind == "label"]
    result.labels = len(labels)
    result.holes = sum(m.missed.count for m in received if m.missed is not None)
    if result.holes:
        result.problems.append(f"the subscriber missed {result.holes} messages")
    stats: dict[str, Any] = next(
        m.event.values["sinks"]
        for m in reversed(received)
        if isinstance(m.event, Stats)
    )  # type: ignore[assignment]
    events = [m for m in received if m.kind in ("onset", "offset", "label", "audio")]
    for audit_of_sink in audit(disk.folders(), events, stats, seed):
        result.audits.append(audit_of_sink)
    for audit_of_sink in result.audits:
        result.problems += [
            f"{audit_of_sink.sink}: {p}" for p in audit_of_sink.problems
        ]
        lossy = audit_of_sink.counted and audit_of_sink.sink != "files"
        must = audit_of_sink.sink in WRITING or lossy
        if must and f"sink {_quoted(audit_of_sink.sink)}" not in result.reports:
            result.problems.append(f"{audit_of_sink.sink}: health said nothing")
    for sink, trouble in result.reports.items():
        if trouble.recovered_s is None:
            result.problems.append(f"{sink} has not recovered: {trouble.why}")
        if not trouble.why.strip():
            result.problems.append(f"{sink}: no reason was given")
    misplaced_files = disk.misplaced_files()
    if misplaced_files:
        result.problems.append(f"written below the disk: {misplaced_files}")


def _quoted(name: str) -> str:
    plugin, *number = name.split()
    return " ".join([f"'{plugin}'", *number])


def _reports(
    recorder: EventRecorder, failed_at: float, repaired_at: float
) -> dict[str, HealthReport]:
    found: dict[str, HealthReport] = {}
    for at, message in list(recorder.received):
        event = message.event
        if not isinstance(event, Health) or at < failed_at:
            continue
        if event.state != "healthy":
            known = found.setdefault(
                event.stage, HealthReport(at - failed_at, event.detail)
            )
            known.recovered_s = None
        elif event.stage in found:
            found[event.stage].recovered_s = max(0.0, at - repaired_at)
    return found


def _unrecovered(recorder: EventRecorder, since: float) -> list[str]:
    reports = _reports(recorder, since, since)
    return [sink for sink, trouble in reports.items() if trouble.recovered_s is None]


def _count(recorder: EventRecorder, kind: str) -> int:
    return sum(m.kind == kind for _, m in list(recorder.received))


def _wait(done: Any, engine: subprocess.Popen[Any], why: str) -> None:
    """Wait for `done`; raise on a timeout only if `why` is given."""
    until = time.monotonic() + PATIENCE_S
    while not done():
        if engine.poll() is not None:
            raise TimeoutError(f"the engine ended by itself ({engine.returncode})")
        if time.monotonic() > until:
            if why:
                raise TimeoutError(why)
            return
        time.sleep(0.1)


def _table(results: dict[str, Result | None]) -> Table:
    table = Table(
        *("failure", "labels received", "missed", "sinks that reported"),
        *(
            "reported after, s",
            "recovered after, s",
            "lost = counted, of each sink",
            "verdict",
        ),
        box=None,
    )
    for name, result in results.items():
        if result is None:
            table.add_row(name, *["-"] * 6, "not tried: needs root")
            continue
        reports = result.reports.values()
        lost = [f"{a.sink} {a.missing}" for a in result.audits if a.missing]
        table.add_row(
            name,
            str(result.labels),
            str(result.holes),
            str(len(reports)),
            _span([t.reported_s for t in reports]),
            _span([t.recovered_s for t in reports if t.recovered_s is not None]),
            ", ".join(lost) or "nothing",
            "FAILED" if result.problems else "survived",
        )
    return table


def _span(values: list[float]) -> str:
    return f"{min(values):.1f} to {max(values):.1f}" if values else "-"


if __name__ == "__main__":
    sys.exit(main())

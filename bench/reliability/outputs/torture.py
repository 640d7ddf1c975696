"""Kills of a running engine, and the losses of its journal: ``make torture``.

Each round starts the engine with the configuration below, receives its labels as a
subscriber, kills it (SIGKILL) at a random moment, and opens the journal. Rounds share
one journal. Counted are journals that do not open, labels that a subscriber received
longer than the stated window before the kill and that the journal lacks, holes, and
duplicates.

    .venv/bin/python bench/reliability/outputs/torture.py --kills 300
    .venv/bin/python bench/reliability/outputs/torture.py --kills 60 --files

With ``--files`` the engine labels, generates song, and has all sinks that write files;
one kill in five comes while it ends, and after each every file is compared with the
journal (`torture_files`).
"""

import argparse
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import track
from torture_files import SinkFiles
from torture_killed import KINDS, KilledRun

from neurovocal.engine.client import Received, Subscriber
from neurovocal.engine.contracts.errors import NeurovocalError
from neurovocal.engine.journal import read_events, runs

# Events that were not committed yet may be lost (docs/reference/journal.md).
WINDOW_S = 1.0
# One kill in four comes while the engine starts, the others so long after the first
# received event.
STARTING_SHARE = 0.25
LIFE_S = (0.0, 3.0)
# With files: clips are written more than a second after their sound. One run in five
# is asked to end, and killed so soon after that.
FILES_LIFE_S = (0.0, 6.0)
ENDING_SHARE, ENDING_S = 0.2, (0.0, 0.5)
LONGEST_START_S = 60.0
CONFIG = """
version: 1
station: torture
source: {{plugin: synthetic, options: {{pace: realtime, duration_s: null, seed: {seed},
         pause_ms: [50, 100], song_length: 20}}}}
sinks:
  - {{plugin: zmq, options: {{endpoint: "tcp://127.0.0.1:{port}"}}}}
  - {{plugin: journal, options: {{path: {journal}}}}}
"""
ENGINE = "from neurovocal.engine.cli import main; main()"
KIND = "offset"  # of the bare detector: a fast start, and one event per segment


@dataclass
class Losses:
    """Losses by all kills."""

    kills: int = 0
    unopened: int = 0
    received: int = 0
    kept: int = 0
    lost: int = 0
    within_window: int = 0
    holes: int = 0
    doubled: int = 0
    failures: list[str] = field(default_factory=list)


def main() -> int:
    """Kill, compare and print; 0 if nothing was lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--files", action="store_true", help="audit the files of all sinks, too"
    )
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    losses = Losses()
    with tempfile.TemporaryDirectory() as folder:
        files = SinkFiles(Path(folder) / "out") if arguments.files else None
        bar = Console(stderr=True)
        try:
            for number in track(range(arguments.kills), "killing", console=bar):
                kill_once(Path(folder), number, rng, losses, files)
            if files:
                end_once(Path(folder), arguments.kills, losses, files)
        except KeyboardInterrupt:
            print("interrupted; so far:", file=sys.stderr)
        check_whole(Path(folder) / "j.sqlite", losses)
    print(json.dumps({k: v for k, v in vars(losses).items() if k != "failures"}))
    for name, count in files.counts.items() if files else ():
        print(json.dumps({"sink": name, **vars(count)}))
    for sentence in (losses.failures + (files.problems if files else []))[:10]:
        print(sentence, file=sys.stderr)
    failed = losses.unopened or losses.lost or losses.holes or losses.doubled
    return 2 if failed or (files and not files.ok()) else 0


def kill_once(
    folder: Path,
    number: int,
    rng: random.Random,
    losses: Losses,
    files: SinkFiles | None,
) -> None:
    """Run and kill the engine once, and audit its files."""
    starting = rng.random() < STARTING_SHARE
    life_s = rng.uniform(*(FILES_LIFE_S if files else LIFE_S))
    ending = files is not None and rng.random() < ENDING_SHARE
    wait_s = rng.uniform(*ENDING_S) if ending else None
    run_and_kill(folder, number, losses, files, life_s, wait_s, starting=starting)


def end_once(folder: Path, number: int, losses: Losses, files: SinkFiles) -> None:
    """Run the engine once to its regular end, to complete files of killed runs."""
    run_and_kill(folder, number, losses, files, 3.0, LONGEST_START_S, starting=False)
    files.finish()


def run_and_kill(
    folder: Path,
    number: int,
    losses: Losses,
    files: SinkFiles | None,
    life_s: float,
    wait_s: float | None,
    *,
    starting: bool,
) -> None:
    """Start the engine, receive for `life_s`, ask it to end for `wait_s`, kill it."""
    port = free_port()
    journal = folder / "j.sqlite"
    config = folder / "config.yaml"
    text = CONFIG.format(seed=number, port=port, journal=journal)
    config.write_text(files.config(number, port, journal) if files else text)
    known = set(run_names(journal, losses))
    engine = subprocess.Popen(
        [sys.executable, "-c", ENGINE, "run", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    received: list[tuple[float, Received]] = []
    deadline = time.monotonic() + (life_s if starting else LONGEST_START_S)
    endpoint = f"tcp://127.0.0.1:{port}"
    kinds = KINDS if files else (KIND,)
    with Subscriber(endpoint, kinds=kinds, timeout=0.05) as subscriber:
        while time.monotonic() < deadline and engine.poll() is None:
            for message in subscriber:
                now = time.monotonic()
                if not received and not starting:
                    deadline = now + life_s
                received.append((now, message))
                if now >= deadline:
                    break
    if wait_s is not None:
        engine.terminate()
        with suppress(subprocess.TimeoutExpired):
            engine.wait(wait_s)
    engine.kill()
    killed = time.monotonic()
    _, stderr = engine.communicate()
    if engine.returncode != -signal.SIGKILL and wait_s is None:
        losses.failures.append(f"round {number}: the engine ended: {stderr.decode()}")
    losses.kills += engine.returncode == -signal.SIGKILL
    compare(journal, known, received, killed, losses)
    if files:
        files.audit(
            describe_killed_run(journal, known, received, killed, number, losses)
        )


def describe_killed_run(
    journal: Path,
    known: set[str],
    received: list[tuple[float, Received]],
    killed: float,
    seed: int,
    losses: Losses,
) -> KilledRun:
    """Collect the events of a killed run from journal and subscriber."""
    new = [run for run in run_names(journal, losses) if run not in known]
    kept = [event for run in new for event in read_events(journal, run)]
    old = [m for at, m in received if killed - at > WINDOW_S]
    run = received[0][1].run if received else "".join(new)
    return KilledRun(run, kept, [m for _, m in received], old, seed)


def compare(
    journal: Path,
    known: set[str],
    received: list[tuple[float, Received]],
    killed: float,
    losses: Losses,
) -> None:
    """Compare the received events with those in the journal."""
    new = [run for run in run_names(journal, losses) if run not in known]
    kept = [e.seq for run in new for e in read_events(journal, run) if e.kind == KIND]
    received = [(at, m) for at, m in received if m.kind == KIND]
    losses.received += len(received)
    losses.kept += len(kept)
    missing = [(at, m.seq) for at, m in received if m.seq not in set(kept)]
    late = [seq for at, seq in missing if killed - at > WINDOW_S]
    losses.lost += len(late)
    losses.within_window += len(missing) - len(late)
    if late:
        losses.failures.append(f"run {new}: lost {late}")
    if kept != list(range(len(kept))):
        losses.holes += 1
        losses.failures.append(f"run {new}: {kept} has holes")


def run_names(journal: Path, losses: Losses) -> list[str]:
    """Return the runs in the journal; count a journal that does not open."""
    if not journal.exists():
        return []
    try:
        return [record.run for record in runs(journal)]
    except NeurovocalError as error:
        losses.unopened += 1
        losses.failures.append(str(error))
        return []


def check_whole(journal: Path, losses: Losses) -> None:
    """Count duplicates in the whole journal."""
    for run in run_names(journal, losses):
        keys = Counter((e.kind, e.stream, e.seq) for e in read_events(journal, run))
        losses.doubled += sum(number - 1 for number in keys.values())


def free_port() -> int:
    """Return a port without a listener at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


if __name__ == "__main__":
    sys.exit(main())

"""Kill a running engine repeatedly, and count the events that its journal lost.

Each round starts the engine with the configuration below, hears its labels as a
subscriber does, kills it (SIGKILL) at a random moment, and opens the journal. Rounds
share one journal. Counted are journals that do not open, labels that a subscriber had
heard longer than the stated window before the kill and that the journal lacks, holes,
and labels that are there twice.

    .venv/bin/python bench/reliability/torture.py --kills 300
    .venv/bin/python bench/reliability/torture.py --kills 60 --files

With ``--files`` the engine labels, sings, and has all sinks that write files; one kill
in five comes while it ends, and after each every file is held against the journal
(`torture_files`).
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
from torture_files import Files
from torture_killed import KINDS, Killed

from neurovocal.engine.client import Received, Subscriber
from neurovocal.engine.contracts.errors import NeurovocalError
from neurovocal.engine.journal import read_events, runs

# What may be lost: events whose commit was still to come (docs/journal.md).
WINDOW_S = 1.0
# One kill in four comes while the engine starts, the others so long after the first
# event that was heard.
STARTING_SHARE = 0.25
LIFE_S = (0.0, 3.0)
# With files: clips come more than a second after their sound. One life in five is
# asked to end, and killed so soon after that.
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
class Toll:
    """Losses caused by the kills."""

    kills: int = 0
    unopened: int = 0
    heard: int = 0
    kept: int = 0
    lost: int = 0
    within_window: int = 0
    holes: int = 0
    doubled: int = 0
    failures: list[str] = field(default_factory=list)


def main() -> int:
    """Run the trial and print the losses; return 0 if there are none."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--files", action="store_true", help="audit the files of all sinks, too"
    )
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    toll = Toll()
    with tempfile.TemporaryDirectory() as folder:
        files = Files(Path(folder) / "out") if arguments.files else None
        bar = Console(stderr=True)
        try:
            for number in track(range(arguments.kills), "killing", console=bar):
                kill_once(Path(folder), number, rng, toll, files)
            if files:
                end_once(Path(folder), arguments.kills, toll, files)
        except KeyboardInterrupt:
            print("interrupted; so far:", file=sys.stderr)
        check_whole(Path(folder) / "j.sqlite", toll)
    print(json.dumps({k: v for k, v in vars(toll).items() if k != "failures"}))
    for name, count in files.counts.items() if files else ():
        print(json.dumps({"sink": name, **vars(count)}))
    for sentence in (toll.failures + (files.problems if files else []))[:10]:
        print(sentence, file=sys.stderr)
    spoilt = toll.unopened or toll.lost or toll.holes or toll.doubled
    return 2 if spoilt or (files and not files.ok()) else 0


def kill_once(
    folder: Path, number: int, rng: random.Random, toll: Toll, files: Files | None
) -> None:
    """Run and kill the engine once, then audit its files."""
    starting = rng.random() < STARTING_SHARE
    life_s = rng.uniform(*(FILES_LIFE_S if files else LIFE_S))
    ending = files is not None and rng.random() < ENDING_SHARE
    wait_s = rng.uniform(*ENDING_S) if ending else None
    live_and_die(folder, number, toll, files, life_s, wait_s, starting=starting)


def end_once(folder: Path, number: int, toll: Toll, files: Files) -> None:
    """Run the engine to an orderly end, which completes files left by kills."""
    live_and_die(folder, number, toll, files, 3.0, LONGEST_START_S, starting=False)
    files.finish()


def live_and_die(
    folder: Path,
    number: int,
    toll: Toll,
    files: Files | None,
    life_s: float,
    wait_s: float | None,
    *,
    starting: bool,
) -> None:
    """Start the engine, receive for `life_s`, stop it for `wait_s`, then kill it."""
    port = free_port()
    journal = folder / "j.sqlite"
    config = folder / "config.yaml"
    text = CONFIG.format(seed=number, port=port, journal=journal)
    config.write_text(files.config(number, port, journal) if files else text)
    known = set(run_names(journal, toll))
    engine = subprocess.Popen(
        [sys.executable, "-c", ENGINE, "run", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    heard: list[tuple[float, Received]] = []
    deadline = time.monotonic() + (life_s if starting else LONGEST_START_S)
    endpoint = f"tcp://127.0.0.1:{port}"
    kinds = KINDS if files else (KIND,)
    with Subscriber(endpoint, kinds=kinds, timeout=0.05) as subscriber:
        while time.monotonic() < deadline and engine.poll() is None:
            for message in subscriber:
                now = time.monotonic()
                if not heard and not starting:
                    deadline = now + life_s
                heard.append((now, message))
                if now >= deadline:
                    break
    if wait_s is not None:
        engine.terminate()
        with suppress(subprocess.TimeoutExpired):
            engine.wait(wait_s)
    engine.kill()
    killed = time.monotonic()
    _, said = engine.communicate()
    if engine.returncode != -signal.SIGKILL and wait_s is None:
        toll.failures.append(f"round {number}: the engine ended: {said.decode()}")
    toll.kills += engine.returncode == -signal.SIGKILL
    compare(journal, known, heard, killed, toll)
    if files:
        files.audit(killed_run(journal, known, heard, killed, number, toll))


def killed_run(
    journal: Path,
    known: set[str],
    heard: list[tuple[float, Received]],
    killed: float,
    seed: int,
    toll: Toll,
) -> Killed:
    """Return the record of a killed run."""
    new = [run for run in run_names(journal, toll) if run not in known]
    kept = [event for run in new for event in read_events(journal, run)]
    old = [m for at, m in heard if killed - at > WINDOW_S]
    run = heard[0][1].run if heard else "".join(new)
    return Killed(run, kept, [m for _, m in heard], old, seed)


def compare(
    journal: Path,
    known: set[str],
    heard: list[tuple[float, Received]],
    killed: float,
    toll: Toll,
) -> None:
    """Compare the received events with those in the journal."""
    new = [run for run in run_names(journal, toll) if run not in known]
    kept = [e.seq for run in new for e in read_events(journal, run) if e.kind == KIND]
    heard = [(at, m) for at, m in heard if m.kind == KIND]
    toll.heard += len(heard)
    toll.kept += len(kept)
    missing = [(at, m.seq) for at, m in heard if m.seq not in set(kept)]
    late = [seq for at, seq in missing if killed - at > WINDOW_S]
    toll.lost += len(late)
    toll.within_window += len(missing) - len(late)
    if late:
        toll.failures.append(f"run {new}: lost {late}")
    if kept != list(range(len(kept))):
        toll.holes += 1
        toll.failures.append(f"run {new}: {kept} has holes")


def run_names(journal: Path, toll: Toll) -> list[str]:
    """Return the runs in the journal; count a journal that does not open."""
    if not journal.exists():
        return []
    try:
        return [record.run for record in runs(journal)]
    except NeurovocalError as error:
        toll.unopened += 1
        toll.failures.append(str(error))
        return []


def check_whole(journal: Path, toll: Toll) -> None:
    """Count duplicate events in the whole journal."""
    for run in run_names(journal, toll):
        keys = Counter((e.kind, e.stream, e.seq) for e in read_events(journal, run))
        toll.doubled += sum(number - 1 for number in keys.values())


def free_port() -> int:
    """Return a free TCP port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


if __name__ == "__main__":
    sys.exit(main())

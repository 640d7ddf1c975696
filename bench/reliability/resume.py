"""Cuts, stalls and kills between an engine and its subscriber: ``make bench-resume``.

An engine (its own process, killed and restarted now and then) keeps a journal and
publishes through a network that is cut at random moments. A subscriber (its own
process, killed and restarted, too) stores its messages in a file together with its
positions. In the end its file must equal the journal: nothing missing, nothing twice. A
second subscriber reads without disturbance beside a third one that never reads; the
lateness of its messages is measured.

    .venv/bin/python bench/reliability/resume.py --cuts 100
"""

import argparse
import json
import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track
from torture import ENGINE, free_port

from neurovocal.engine.client import Position, Received, Subscriber
from neurovocal.engine.journal import read_events, runs

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "helpers"))
from network.bad_network import BadNetwork

KINDS = ("onset", "offset")
ACTIONS = ("cut live", "cut live", "cut replay", "stall", "kill engine", "kill reader")
SETTLE_S = 30.0


def main() -> int:
    """Run the trial; return 0 if no label is missing or double."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cuts", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--read", nargs=3, metavar=("LIVE", "REPLAY", "FILE"))
    parser.add_argument("--kinds", nargs="+", default=KINDS)
    arguments = parser.parse_args()
    if arguments.read:
        return run_subscriber(*arguments.read, kinds=arguments.kinds)
    with tempfile.TemporaryDirectory() as folder:
        result = disturb(Path(folder), arguments.cuts, random.Random(arguments.seed))
    print(json.dumps(result))
    return 2 if result["missing"] or result["double"] or result["strange"] else 0


def disturb(folder: Path, cuts: int, rng: random.Random) -> dict[str, object]:
    """Run the whole measurement and return its results."""
    ports = {"live": free_port(), "replay": free_port()}
    journal, received_path = folder / "j.sqlite", folder / "received.sqlite"
    done = dict.fromkeys(ACTIONS, 0)
    lateness = LatenessMeter(f"tcp://127.0.0.1:{ports['live']}")
    with BadNetwork(ports["live"]) as live, BadNetwork(ports["replay"]) as replay:
        engine = start_engine(folder, journal, ports, 0)
        reader = start_reader(live, replay, received_path)
        lateness.start()
        for number in track(range(cuts), "cutting", console=Console(stderr=True)):
            time.sleep(rng.uniform(0.2, 2.0))
            action = rng.choice(ACTIONS)
            done[action] += 1
            match action:
                case "cut live":
                    live.cut()
                case "cut replay":
                    replay.cut()
                case "stall":
                    live.paused = True
                    time.sleep(rng.uniform(0.1, 1.0))
                    live.paused = False
                case "kill engine":
                    kill(engine)
                    engine = start_engine(folder, journal, ports, number + 1)
                case "kill reader":
                    kill(reader)
                    reader = start_reader(live, replay, received_path)
        time.sleep(3)
        engine.terminate()
        engine.wait()
        kept = stored_in(journal)
        # Those who were cut at the very end ask the next engine.
        engine = start_engine(folder, journal, ports, cuts + 1)
        wait_for_subscriber(received_path, kept)
        kill(reader)
        engine.terminate()
        engine.wait()
    lateness.stop()
    return {**compare(received_path, kept), **lateness.summary(), "actions": done}


def start_engine(
    folder: Path, journal: Path, ports: dict[str, int], seed: int
) -> subprocess.Popen[bytes]:
    """Start an engine on the same ports and journal as before."""
    config = configure(folder, journal, ports, {"seed": seed})
    return subprocess.Popen(
        [sys.executable, "-c", ENGINE, "run", str(config)], stdout=subprocess.DEVNULL
    )


def configure(
    folder: Path,
    journal: Path,
    ports: dict[str, int],
    song: dict[str, object],
    **more: object,
) -> Path:
    """Write the configuration of an engine that labels endless synthetic song.

    Parameters
    ----------
    folder : Path
        Folder of the configuration.
    journal : Path
        Journal, kept from one run to the next.
    ports : dict
        ``live`` and ``replay``.
    song : dict
        Options of the source, beside those that make it dense.
    more : optional
        Other keys of the configuration.
    """
    live, replay = (f"tcp://127.0.0.1:{ports[name]}" for name in ("live", "replay"))
    dense = {"duration_s": None, "pause_ms": [50, 100], "song_length": 20}
    options = {"pace": "realtime", **dense, **song}
    sinks = [
        {"plugin": "zmq", "options": {"endpoint": live}},
        {"plugin": "journal", "options": {"path": str(journal), "replay": replay}},
    ]
    source = {"plugin": "synthetic", "options": options}
    whole = {"version": 1, "station": "cut", "source": source, **more, "sinks": sinks}
    config = folder / "config.yaml"
    config.write_text(json.dumps(whole))
    return config


def start_reader(
    live: BadNetwork, replay: BadNetwork, received_path: Path
) -> subprocess.Popen[bytes]:
    """Start a subscriber that resumes where the last one was killed."""
    where = [live.endpoint, replay.endpoint, str(received_path)]
    return subprocess.Popen([sys.executable, __file__, "--read", *where])


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process at once."""
    process.kill()
    process.wait()


def run_subscriber(
    live: str, replay: str, received_path: str, kinds: Sequence[str] = KINDS
) -> int:
    """Subscribe; store each message and its position in one transaction."""
    kept = sqlite3.connect(received_path)
    kept.execute("CREATE TABLE IF NOT EXISTS received (run, kind, stream, seq)")
    kept.execute(
        "CREATE TABLE IF NOT EXISTS positions (kind, stream, run, seq, "
        "PRIMARY KEY (kind, stream))"
    )
    positions = {
        (kind, stream): Position(run, seq)
        for kind, stream, run, seq in kept.execute("SELECT * FROM positions")
    }
    with Subscriber(
        live, kinds, replay=replay, start="journal", positions=positions
    ) as subscriber:
        for one in subscriber:
            row = (one.run, one.kind, one.stream, one.seq)
            with kept:
                kept.execute("INSERT INTO received VALUES (?, ?, ?, ?)", row)
                kept.execute(
                    "INSERT OR REPLACE INTO positions VALUES (?, ?, ?, ?)",
                    (one.kind, one.stream, one.run, one.seq),
                )
    return 0


def stored_in(
    journal: Path, kinds: Sequence[str] = KINDS
) -> list[tuple[str, str, str, int]]:
    """Return the events of ended runs in the journal."""
    return [
        (record.run, e.kind, e.stream, e.seq)
        for record in runs(journal)
        for e in read_events(journal, record.run)
        if e.kind in kinds
    ]


def received_in(received_path: Path) -> list[tuple[str, str, str, int]]:
    """Return the messages that the subscriber stored."""
    with sqlite3.connect(received_path) as connection:
        return list(connection.execute("SELECT * FROM received"))


def wait_for_subscriber(
    received_path: Path, kept: list[tuple[str, str, str, int]]
) -> None:
    """Wait until the subscriber has every event, at most `SETTLE_S`."""
    until = time.monotonic() + SETTLE_S
    while set(kept) - set(received_in(received_path)) and time.monotonic() < until:
        time.sleep(0.5)


def compare(
    received_path: Path, kept: list[tuple[str, str, str, int]]
) -> dict[str, object]:
    """Count missing, double and strange rows (neither stored nor lost)."""
    received = received_in(received_path)
    ended = {run for run, *_ in kept}
    last = {(run, kind, stream): seq for run, kind, stream, seq in kept}
    strange = [
        row
        for row in set(received) - set(kept)
        if row[0] in ended and row[3] <= last.get(row[:3], -1)
    ]
    return {
        "kept": len(kept),
        "missing": len(set(kept) - set(received)),
        "double": len(received) - len(set(received)),
        "strange": len(strange),
    }


def lateness_ms(received: Received) -> float:
    """Return how late a message is by its stream's clock, plus a constant per run."""
    event_ms = received.at / received.sample_rate * 1e3
    return time.monotonic() * 1e3 - event_ms


class LatenessMeter:
    """Lateness of a subscriber's messages beside one that never reads.

    Relative to the fastest message of the same run, without the engine's own latency.
    """

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._late_ms: dict[str, list[float]] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def start(self) -> None:
        """Connect both."""
        self._thread.start()

    def stop(self) -> None:
        """Disconnect both."""
        self._stopping.set()
        self._thread.join()

    def summary(self) -> dict[str, object]:
        """Return the median and the 99th percentile."""
        late = sorted(one - min(run) for run in self._late_ms.values() for one in run)
        if not late:
            return {"late_ms_p50": None, "late_ms_p99": None}
        return {
            "late_ms_p50": round(late[len(late) // 2], 2),
            "late_ms_p99": round(late[int(len(late) * 0.99)], 2),
        }

    def _read(self) -> None:
        everything = ("frames", *KINDS)
        with (
            Subscriber(self._endpoint, everything, queue_length=1),  # never reads
            Subscriber(self._endpoint, KINDS) as reader,
        ):
            while not self._stopping.is_set():
                one = reader.receive(0.2)
                if one is not None:
                    self._late_ms.setdefault(one.run, []).append(lateness_ms(one))


if __name__ == "__main__":
    sys.exit(main())

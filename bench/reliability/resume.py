"""Cut, stall and kill an engine and its subscriber, and count missing labels.

An engine (its own process, killed and started again now and then) keeps a journal and
publishes through a network that is cut at random moments. A subscriber (its own
process, killed and started again, too) writes what it hears into a file together with
its positions. In the end its file must hold what the journal holds: nothing missing,
nothing twice. A second subscriber reads without trouble while a third one never reads:
how late are the reader's messages?

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
        return read_for_ever(*arguments.read, kinds=arguments.kinds)
    with tempfile.TemporaryDirectory() as folder:
        result = trouble(Path(folder), arguments.cuts, random.Random(arguments.seed))
    print(json.dumps(result))
    return 2 if result["missing"] or result["double"] or result["strange"] else 0


def trouble(folder: Path, cuts: int, rng: random.Random) -> dict[str, object]:
    """Run the trial and return its counts."""
    ports = {"live": free_port(), "replay": free_port()}
    journal, diary = folder / "j.sqlite", folder / "heard.sqlite"
    done = dict.fromkeys(ACTIONS, 0)
    lateness = Lateness(f"tcp://127.0.0.1:{ports['live']}")
    with BadNetwork(ports["live"]) as live, BadNetwork(ports["replay"]) as replay:
        engine = start_engine(folder, journal, ports, 0)
        reader = start_reader(live, replay, diary)
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
                    reader = start_reader(live, replay, diary)
        time.sleep(3)
        engine.terminate()
        engine.wait()
        kept = kept_in(journal)
        # Those who were cut at the very end ask the next engine.
        engine = start_engine(folder, journal, ports, cuts + 1)
        settle(diary, kept)
        kill(reader)
        engine.terminate()
        engine.wait()
    lateness.stop()
    return {**compare(diary, kept), **lateness.summary(), "actions": done}


def start_engine(
    folder: Path, journal: Path, ports: dict[str, int], seed: int
) -> subprocess.Popen[bytes]:
    """Start an engine on the ports and journal of the one before."""
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
    """An engine that sings without end, publishes, and answers from its journal.

    Parameters
    ----------
    folder : Path
        Where the configuration is written to.
    journal : Path
        Kept from one run to the next.
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
    live: BadNetwork, replay: BadNetwork, diary: Path
) -> subprocess.Popen[bytes]:
    """Start a subscriber that resumes where the one before was killed."""
    where = [live.endpoint, replay.endpoint, str(diary)]
    return subprocess.Popen([sys.executable, __file__, "--read", *where])


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process at once."""
    process.kill()
    process.wait()


def read_for_ever(
    live: str, replay: str, diary: str, kinds: Sequence[str] = KINDS
) -> int:
    """Receive messages; store each and its position in one transaction."""
    kept = sqlite3.connect(diary)
    kept.execute("CREATE TABLE IF NOT EXISTS heard (run, kind, stream, seq)")
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
                kept.execute("INSERT INTO heard VALUES (?, ?, ?, ?)", row)
                kept.execute(
                    "INSERT OR REPLACE INTO positions VALUES (?, ?, ?, ?)",
                    (one.kind, one.stream, one.run, one.seq),
                )
    return 0


def kept_in(
    journal: Path, kinds: Sequence[str] = KINDS
) -> list[tuple[str, str, str, int]]:
    """Return the labels in the journal of ended runs."""
    return [
        (record.run, e.kind, e.stream, e.seq)
        for record in runs(journal)
        for e in read_events(journal, record.run)
        if e.kind in kinds
    ]


def heard_in(diary: Path) -> list[tuple[str, str, str, int]]:
    """Return the labels that the subscriber stored."""
    with sqlite3.connect(diary) as connection:
        return list(connection.execute("SELECT * FROM heard"))


def settle(diary: Path, kept: list[tuple[str, str, str, int]]) -> None:
    """Wait a bounded time until the subscriber has caught up."""
    until = time.monotonic() + SETTLE_S
    while set(kept) - set(heard_in(diary)) and time.monotonic() < until:
        time.sleep(0.5)


def compare(diary: Path, kept: list[tuple[str, str, str, int]]) -> dict[str, object]:
    """Count missing, double and unexplained labels of the subscriber."""
    heard = heard_in(diary)
    ended = {run for run, *_ in kept}
    last = {(run, kind, stream): seq for run, kind, stream, seq in kept}
    strange = [
        row
        for row in set(heard) - set(kept)
        if row[0] in ended and row[3] <= last.get(row[:3], -1)
    ]
    return {
        "kept": len(kept),
        "missing": len(set(kept) - set(heard)),
        "double": len(heard) - len(set(heard)),
        "strange": len(strange),
    }


def late_ms(received: Received) -> float:
    """Return a message's lateness on its stream's clock, plus a constant of its run."""
    told_ms = received.at / received.sample_rate * 1e3
    return time.monotonic() * 1e3 - told_ms


class Lateness:
    """Measures how late a reader gets its messages beside one that never reads.

    Later than the promptest message of the same run, that is: the engine's own
    latency is not of interest here.
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
        """Return median and 99th percentile."""
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
                    self._late_ms.setdefault(one.run, []).append(late_ms(one))


if __name__ == "__main__":
    sys.exit(main())

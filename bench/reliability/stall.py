"""A subscriber that is stopped for minutes beside one that reads: ``make bench-stall``.

An engine labels song in real time and publishes every kind, spectrogram frames too.
One subscriber reads all the time. Another one (its own process) subscribes to the same,
is stopped by a signal (SIGSTOP) for minutes, so that every buffer on the way to it
fills, and continues. Measured are the lateness of the first one's labels during the
stop, compared with before, and the labels that the second one lacks in the end.

    .venv/bin/python bench/reliability/stall.py --minutes 10
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from resume import compare, configure, lateness_ms, stored_in, wait_for_subscriber
from rich.console import Console
from rich.progress import track
from torture import ENGINE, free_port

from neurovocal.engine.client import Subscriber

EVERYTHING = ("frames", "surprise", "onset", "offset", "label")
BASELINE_SHARE = 0.2  # of the minutes, before the stall
START_S = 60.0
MOST_MS = 50.0  # that the other's stall may cost the reader's labels (99 %)
SONG = {"sample_rate": 32_000, "seed": 1}
STAGES = {
    "bundle": "bengalese-finch",
    "models": [{"plugin": "classifier"}, {"plugin": "rnn_rbm"}],
}


def main() -> int:
    """Run the trial; return 0 if the reader has no delay and nothing is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = stall(Path(folder), arguments.minutes * 60)
    print(json.dumps(result))
    disturbed = result["extra_ms_p99"] > MOST_MS or result["reader_missed"]
    lost = not result["labels"] or result["missing"] or result["double"]
    return 2 if disturbed or lost else 0


def stall(folder: Path, stalled_s: float) -> dict[str, float]:
    """Run the whole measurement and return its results."""
    ports = {"live": free_port(), "replay": free_port()}
    live, replay = (f"tcp://127.0.0.1:{port}" for port in ports.values())
    journal, received_path = folder / "j.sqlite", folder / "received.sqlite"
    config = configure(folder, journal, ports, SONG, **STAGES)
    engine = start("-c", ENGINE, "run", str(config), "--json")
    resume = str(Path(__file__).with_name("resume.py"))
    kinds = ("--kinds", *EVERYTHING)
    other = start(resume, "--read", live, replay, str(received_path), *kinds)
    try:
        with Subscriber(live, ("label",)) as reader:
            if reader.receive(START_S) is None:
                raise SystemExit(f"no label within {START_S:g} s")
            alone = lateness(reader, stalled_s * BASELINE_SHARE, "both read")
            other.send_signal(signal.SIGSTOP)
            beside = lateness(reader, stalled_s, "one stands still")
            other.send_signal(signal.SIGCONT)
            lateness(reader, 5.0, "both read")
            missed = reader.missed
        engine.terminate()
        engine.wait()
        kept = stored_in(journal, ("label",))
        # What came last, the other one asks of the next engine.
        engine = start("-c", ENGINE, "run", str(config), "--json")
        wait_for_subscriber(received_path, kept)
    finally:
        for process in (other, engine):
            process.kill()
            process.wait()
    found = compare(received_path, kept)
    return {
        "stalled_s": stalled_s,
        "labels": len(kept),
        "missing": int(str(found["missing"])),
        "double": int(str(found["double"])),
        "reader_missed": missed,
        **{f"alone_{name}": value for name, value in summary(alone).items()},
        **{f"stalled_{name}": value for name, value in summary(beside).items()},
        "extra_ms_p99": round(summary(beside)["ms_p99"] - summary(alone)["ms_p99"], 2),
    }


def start(*arguments: str) -> subprocess.Popen[bytes]:
    """Start a Python process without output."""
    return subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)


def lateness(reader: Subscriber, seconds: float, doing: str) -> list[float]:
    """Return milliseconds from a label's instant to the reader, plus a constant."""
    found: list[float] = []
    for _ in track(range(round(seconds)), doing, console=Console(stderr=True)):
        until = time.monotonic() + 1.0
        while (left := until - time.monotonic()) > 0:
            one = reader.receive(left)
            if one is not None:
                found.append(lateness_ms(one))
    return found


def summary(found: list[float]) -> dict[str, float]:
    """Return the lateness of labels relative to the fastest one."""
    ordered = sorted(found)
    late = [one - ordered[0] for one in ordered]
    return {
        "ms_p50": round(late[len(late) // 2], 2),
        "ms_p99": round(late[int(len(late) * 0.99)], 2),
        "ms_max": round(late[-1], 2),
    }


if __name__ == "__main__":
    sys.exit(main())

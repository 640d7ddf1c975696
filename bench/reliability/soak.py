"""Soak test: many lane-hours through the whole chain, as fast as possible.

Several lanes process the same audio, each in blocks of another length, through front
end, detector, classifier and RNN-RBM into a journal, a socket and a digest. Memory,
handles and the balance of every queue are checked every few seconds. In the end all
lanes must have produced the same events.

    .venv/bin/python bench/reliability/soak.py --hours 24
"""

import argparse
import hashlib
import json
import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import signal
import statistics
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import soundfile as sf
import yaml

from neurovocal.engine.config.located_yaml import parse_located
from neurovocal.engine.config.planner import make_plan
from neurovocal.engine.config.schema import parse_config
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import BuildContext, Plugin
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import Message
from neurovocal.engine.runtime.outcome import Outcome
from neurovocal.engine.runtime.runner import Runner
from neurovocal.engine.support.process import process_usage
from neurovocal.engine.testing import canonical

ROOT = Path(__file__).resolve().parents[2]
RECORDING = ROOT / "configs/recordings/bengalese-finch.flac"
BLOCKS = (8192, 441, 32_000, 1000)
CHECK_S = 10.0
MOST_GROWTH = 0.02
FIRST = 0.1  # share of the audio after which memory must stand still


class Digest:
    """Digest over all events of one lane, in order."""

    wants = frozenset({"onset", "offset", "label", "surprise", "gap"})

    def __init__(self) -> None:
        self.digest = hashlib.blake2b()
        self.count = 0

    def open(self) -> None:
        """Open nothing."""

    def write(self, message: Message) -> None:
        """Add one event to the digest."""
        self.digest.update(repr(canonical(message.event)).encode())
        self.count += 1

    def flush(self, timeout: float) -> None:
        """Flush nothing."""

    def close(self) -> None:
        """Close nothing."""


@dataclass
class Checks:
    """Checks during the run."""

    runner: Runner
    total_s: float
    began: float = field(default_factory=time.monotonic)
    next_s: float = 0.0
    seen: list[tuple[float, float, int]] = field(default_factory=list)
    unbalanced: int = 0
    queues: int = 0

    def tick(self) -> None:
        """Check and print a line, every `CHECK_S` seconds."""
        spent = time.monotonic() - self.began
        if spent < self.next_s:
            return
        self.next_s = spent + CHECK_S
        now, heard_s = (
            process_usage(),
            sum(lane.reader.seconds for lane in self.runner.lanes),
        )
        # A lane that has ended has given back what it held: no measure of the others.
        if not any(lane.finished.is_set() for lane in self.runner.lanes):
            self.seen.append((heard_s / self.total_s, now.rss_mb, now.handles))
        for sink in self.runner.sinks:
            for tally in sink.mailbox.counts().values():
                self.queues += 1
                parts = tally["delivered"] + tally["dropped"] + tally["queued"]
                self.unbalanced += tally["received"] != parts
        print(
            f"{spent:5.0f} s: {heard_s / 3600:6.3f} lane-hours "
            f"({heard_s / max(spent, 1e-9):.0f} x), {now.rss_mb:.1f} MiB, "
            f"{now.handles} handles, {now.threads} threads, "
            f"{self.unbalanced} of {self.queues} queues unbalanced",
            flush=True,
        )

    def verdict(self) -> dict[str, object]:
        """Return the growth of memory and handles after a tenth of the audio."""
        later = [check for check in self.seen if check[0] >= FIRST]
        first, last = later[: max(1, len(later) // 10)], later[-3:]
        if not later:
            return {"checks": len(self.seen)}
        base = statistics.median(rss for _, rss, _ in first)
        return {
            "checks": len(self.seen),
            "rss_mb": [base, last[-1][1]],
            "rss_growth": round(
                statistics.median(rss for _, rss, _ in last) / base - 1, 4
            ),
            "rss_most_mb": max(rss for _, rss, _ in later),
            "handles": dict(sorted(Counter(seen for _, _, seen in later).items())),
            # The fewest: a check may meet a handle that is open for an instant only
            # (a lane counting handles, too, has the list of them open).
            "handles_growth": min(handles for _, _, handles in last)
            - min(handles for _, _, handles in first),
            "queue_checks": self.queues,
            "unbalanced": self.unbalanced,
        }


def main() -> int:
    """Run and compare; 0 if all checks pass."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hours", type=float, default=24.0, help="lane-hours")
    parser.add_argument("--lanes", type=int, default=4)
    parser.add_argument("--tile", type=int, default=25)
    arguments = parser.parse_args()
    length_s = sf.info(RECORDING).duration
    repeat = max(1, round(arguments.hours * 3600 / arguments.lanes / length_s))
    digests = [Digest() for _ in range(arguments.lanes)]
    extra = {
        ("sink", f"digest{i}"): Plugin("sink", Options, lambda o, c, d=d: d, "a hash")
        for i, d in enumerate(digests)
    }
    with tempfile.TemporaryDirectory() as folder:
        data = configuration(arguments.lanes, arguments.tile, repeat, Path(folder))
        located = parse_located(yaml.safe_dump(data), "soak.yaml")
        context = BuildContext(clock=SystemClock(), run="soak")
        plan = make_plan(parse_config(located), located, Registry(extra), context)
        runner = Runner(plan)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: runner.stop())
        checks = Checks(runner, repeat * length_s * arguments.lanes)
        outcome = runner.run(checks.tick)
    return judge(outcome, checks, digests, vars(arguments))


def configuration(
    n_lanes: int, tile: int, repeat: int, folder: Path
) -> dict[str, object]:
    """Return a configuration of lanes that differ in block length only."""
    lanes = [
        {
            "name": f"lane{index}",
            "source": {
                "plugin": "file",
                "options": {
                    "path": str(RECORDING),
                    "repeat": repeat,
                    "streams": "one",
                    "block_length": BLOCKS[index % len(BLOCKS)],
                },
            },
            "bundle": "bengalese-finch",
            "models": [{"plugin": "classifier"}, {"plugin": "rnn_rbm"}],
            "sinks": [{"plugin": f"digest{index}"}],
        }
        for index in range(n_lanes)
    ]
    sinks = [
        {"plugin": "journal", "options": {"path": str(folder / "soak.sqlite")}},
        {"plugin": "zmq", "options": {"endpoint": "tcp://127.0.0.1:*"}},
    ]
    return {"version": 1, "tile": tile, "lanes": lanes, "sinks": sinks}


def judge(
    outcome: Outcome,
    checks: Checks,
    digests: list[Digest],
    arguments: dict[str, object],
) -> int:
    """Print the result; return 0 if all checks pass, 2 if not, 3 after a stop."""
    whole = outcome.seconds >= checks.total_s - 1.0
    result = {
        **arguments,
        "lane_hours": round(outcome.seconds / 3600, 3),
        "whole": whole,
        **checks.verdict(),
        "events": [digest.count for digest in digests],
        "different_digests": len({d.digest.hexdigest() for d in digests}),
        "dropped": outcome.dropped.total(),
        "errors": outcome.errors,
    }
    print(json.dumps(result))
    if not whole or "handles" not in result:
        print("stopped, or over, too soon: nothing is shown by that")
        return 3
    holds = (
        result["rss_growth"] <= MOST_GROWTH
        and result["handles_growth"] <= 0
        and max(result["handles"]) - min(result["handles"]) <= arguments["lanes"]
        and result["unbalanced"] == result["dropped"] == 0
        and result["different_digests"] == 1
        and not outcome.errors
    )
    print("all holds" if holds else "something does not hold")
    return 0 if holds else 2


if __name__ == "__main__":
    raise SystemExit(main())

"""Real-time load: many lanes on two cores.

Every lane plays the shipped recording, each from another position (source `playback`),
into the ring that a microphone fills: a lane that falls behind by more than the ring
holds loses samples, and they are counted. Classifier and surprise run on every lane;
labels go to a journal and to a socket.

    .venv/bin/python bench/speed/load.py --lanes 8 --minutes 10
"""

import argparse
import json
import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import tempfile
import time
from pathlib import Path

import soundfile as sf
import yaml

from neurovocal.engine.config.located_yaml import parse_located
from neurovocal.engine.config.planner import make_plan
from neurovocal.engine.config.schema import parse_config
from neurovocal.engine.contracts.clock import NS, SystemClock
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import BuildContext, Plugin
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import Message
from neurovocal.engine.runtime.runner import Runner
from neurovocal.engine.runtime.workers.latency import Percentiles

RECORDING = (
    Path(__file__).resolve().parents[2] / "configs/recordings/bengalese-finch.flac"
)
BULK = 1024  # 8 lanes bring 500 bulky messages a second: the default's 64 are 0.13 s
WANTED = ("label", "offset", "surprise")


class LatencySink:
    """Sink that measures how late messages arrive after their last sample."""

    wants = frozenset(WANTED)

    def __init__(self) -> None:
        self.late = {kind: Percentiles() for kind in WANTED}

    def open(self) -> None:
        """Open nothing."""

    def write(self, message: Message) -> None:
        """Count one message."""
        if message.ledger is not None:
            ledger = message.ledger
            late = self.late[message.kind]
            late.add(ledger.queue_ms + ledger.compute_ms)

    def flush(self, timeout: float) -> None:
        """Flush nothing."""

    def close(self) -> None:
        """Close nothing."""


def configuration(n_lanes: int, tile: int, journal: Path) -> dict[str, object]:
    """Return classifier and surprise on every lane, with a journal and a socket."""
    apart_s = sf.info(RECORDING).duration / n_lanes
    lanes = [
        {
            "name": f"lane{index}",
            "source": {
                "plugin": "playback",
                "options": {
                    "path": str(RECORDING),
                    "start_s": index * apart_s,
                    "repeat": 0,
                },
            },
            "bundle": "bengalese-finch",
            "models": [{"plugin": "classifier"}, {"plugin": "rnn_rbm"}],
        }
        for index in range(n_lanes)
    ]
    sinks = [
        {"plugin": "journal", "options": {"path": str(journal)}},
        {
            "plugin": "zmq",
            "options": {"endpoint": "tcp://127.0.0.1:*"},
            "queue": {"bulk": BULK},
        },
        {"plugin": "latencies", "queue": {"bulk": BULK}},
    ]
    return {"version": 1, "tile": tile, "lanes": lanes, "sinks": sinks}


def main() -> int:
    """Play, count and print; return 0 if nothing was lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lanes", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--tile", type=int, default=8)
    parser.add_argument("--cores", type=int, default=2)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    with tempfile.TemporaryDirectory() as folder:
        data = configuration(
            arguments.lanes, arguments.tile, Path(folder) / "load.sqlite"
        )
        latencies = LatencySink()
        plugin = Plugin("sink", Options, lambda o, c: latencies, "notes")
        located = parse_located(yaml.safe_dump(data), "load.yaml")
        context = BuildContext(clock=SystemClock(), run="load")
        plan = make_plan(
            parse_config(located),
            located,
            Registry({("sink", "latencies"): plugin}),
            context,
        )
        runner = Runner(plan)
        result = play(runner, arguments.minutes * 60, latencies)
    print(json.dumps({**vars(arguments), **result}))
    return 0 if result["overrun_samples"] == result["dropped"] == 0 else 3


def play(runner: Runner, seconds: float, latencies: LatencySink) -> dict[str, object]:
    """Run for `seconds`; return the measures."""
    began, cpu = time.monotonic(), time.process_time()
    printed_at = began
    worst_ms = 0.0

    def overruns() -> int:
        counts = [lane.reader.source.counts for lane in runner.lanes]
        return sum(each.dropped for each in counts if each is not None)

    def tick() -> None:
        nonlocal printed_at, worst_ms
        lags = [c.lag_ms for lane in runner.lanes for c in lane.channels]
        worst_ms = max([worst_ms, *lags])
        if time.monotonic() - began >= seconds:
            runner.stop()
        if time.monotonic() - printed_at >= 10:
            printed_at = time.monotonic()
            print(
                f"{printed_at - began:.0f} s: lag {max(lags):.0f} ms, "
                f"overruns {overruns()}, load {os.getloadavg()[0]:.1f}",
                flush=True,
            )

    outcome = runner.run(tick)
    wall = time.monotonic() - began
    stages = {}
    for lane in runner.lanes:
        for channel in lane.channels:
            for stage in channel.lane.stages:
                stages[stage.name] = (
                    stages.get(stage.name, 0.0) + stage.metrics.busy_ns / NS
                )
    audio_s = sum(lane.reader.seconds for lane in runner.lanes)
    return {
        "audio_s": round(audio_s, 1),
        "overrun_samples": overruns(),
        "lost_samples": outcome.lost_samples,
        "dropped": outcome.dropped.total(),
        "dropped_by": {
            sink.name: dict(sink.mailbox.dropped)
            for sink in runner.sinks
            if sink.mailbox.dropped
        },
        "cpu_cores": round((time.process_time() - cpu) / wall, 2),
        "other_load": round(os.getloadavg()[0], 1),
        "worst_lag_ms": round(worst_ms),
        "player_late_ms": round(
            max(lane.reader.source.latest_ms for lane in runner.lanes)
        ),
        "late_ms": {kind: late.summary() for kind, late in latencies.late.items()},
        "labels": latencies.late["label"].count,
        "stage_wall_s_per_audio_s": {
            name: round(busy / audio_s, 4) for name, busy in sorted(stages.items())
        },
        "errors": outcome.errors,
    }


if __name__ == "__main__":
    raise SystemExit(main())

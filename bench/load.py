"""Real-time load: many lanes on two cores at the pace of hearing.

Every lane plays the shipped recording, each from another place in it, into the very
ring that a microphone fills: a lane that falls behind by more than the ring holds loses
samples, and they are counted. Classifier and surprise run on every lane; labels go to
a journal and to a socket.

    .venv/bin/python bench/load.py --lanes 8 --minutes 10
"""

import argparse
import json
import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import soundfile as sf
import yaml

from neurovocal.engine.config import parse_config
from neurovocal.engine.located import parse_located
from neurovocal.engine.metrics import Percentiles
from neurovocal.engine.plan import make_plan
from neurovocal.engine.registry import BuildContext, Options, Plugin, Registry
from neurovocal.engine.ring import AudioRing
from neurovocal.engine.runner import Runner
from neurovocal.engine.timebase import NS, SystemClock
from neurovocal.engine.types import Block, Gap, Message, StreamInfo

RECORDING = Path(__file__).resolve().parent.parent / "configs/recordings"
BLOCK_S = 0.01
BUFFER_S = 5.0  # what the microphone source holds by default
BULK = 1024  # 8 lanes bring 500 bulky messages a second: the default's 64 are 0.13 s
WANTED = ("label", "offset", "surprise")


class Player(threading.Thread):
    """Writes 10 ms to the ring of each lane, every 10 ms: the sound cards."""

    def __init__(self, n_lanes: int, seconds: float) -> None:
        super().__init__(daemon=True)
        samples, self.rate = sf.read(
            RECORDING / "bengalese-finch.flac", dtype="float32", always_2d=True
        )
        apart = len(samples) // n_lanes
        self._parts = [np.roll(samples, -i * apart, axis=0) for i in range(n_lanes)]
        self.rings = [AudioRing(round(BUFFER_S * self.rate), 1) for _ in range(n_lanes)]
        self._seconds = seconds
        self.stopping = False
        self.latest_ms = 0.0

    def run(self) -> None:
        """Play until the time is over."""
        length = round(self.rate * BLOCK_S)
        began = time.monotonic_ns()
        for number in range(round(self._seconds / BLOCK_S)):
            due = began + round((number + 1) * BLOCK_S * NS)
            late = time.monotonic_ns() - due
            self.latest_ms = max(self.latest_ms, late / 1e6)
            if late < 0:
                time.sleep(-late / NS)
            if self.stopping:
                break
            for ring, part in zip(self.rings, self._parts, strict=True):
                start = number * length % (len(part) - length)
                ring.write(part[start : start + length], time.monotonic_ns())
        for ring in self.rings:
            ring.close()


class Card:
    """A live source that reads a ring, as the microphone does."""

    live = True

    def __init__(self, player: Player, index: int) -> None:
        self._player, self._ring = player, player.rings[index]
        self.info = StreamInfo(f"lane{index}", player.rate)

    def open(self) -> None:
        """Start the player with the first lane."""
        if self._player.ident is None:
            self._player.start()

    def read(self, timeout: float) -> Block | Gap | None:
        """What was played since the last call."""
        return self._ring.read(self._player.rate // 10, timeout)

    def close(self) -> None:
        """Nothing more is wanted."""
        self._player.stopping = True


class Ears:
    """Notes how late messages come, from the last sample's arrival."""

    wants = frozenset(WANTED)

    def __init__(self) -> None:
        self.late = {kind: Percentiles() for kind in WANTED}

    def open(self) -> None:
        """Nothing to open."""

    def write(self, message: Message) -> None:
        """Count one message."""
        if message.ledger is not None:
            ledger = message.ledger
            late = self.late[message.kind]
            late.add(ledger.queue_ms + ledger.compute_ms)

    def flush(self, timeout: float) -> None:
        """Nothing to flush."""

    def close(self) -> None:
        """Nothing to close."""


def configuration(n_lanes: int, tile: int, journal: Path) -> dict[str, object]:
    """Classifier and surprise on every lane; a journal and a socket for all."""
    lanes = [
        {
            "name": f"lane{index}",
            "source": {"plugin": f"card{index}"},
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
        {"plugin": "ears", "queue": {"bulk": BULK}},
    ]
    return {"version": 1, "tile": tile, "lanes": lanes, "sinks": sinks}


def main() -> int:
    """Play, count and print; 0 if nothing was lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lanes", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--tile", type=int, default=8)
    parser.add_argument("--cores", type=int, default=2)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    player = Player(arguments.lanes, arguments.minutes * 60)
    extra = {
        ("source", f"card{i}"): Plugin(
            "source", Options, lambda o, c, i=i: Card(player, i), "a played card"
        )
        for i in range(arguments.lanes)
    }
    with tempfile.TemporaryDirectory() as folder:
        data = configuration(
            arguments.lanes, arguments.tile, Path(folder) / "load.sqlite"
        )
        ears = Ears()
        extra["sink", "ears"] = Plugin("sink", Options, lambda o, c: ears, "notes")
        located = parse_located(yaml.safe_dump(data), "load.yaml")
        context = BuildContext(clock=SystemClock(), run="load")
        plan = make_plan(parse_config(located), located, Registry(extra), context)
        runner = Runner(plan)
        result = play(runner, player, ears)
    print(json.dumps({**vars(arguments), **result}))
    return 0 if result["overrun_samples"] == result["dropped"] == 0 else 3


def play(runner: Runner, player: Player, ears: Ears) -> dict[str, object]:
    """Run to the end; figures of it."""
    began, cpu = time.monotonic(), time.process_time()
    told = began
    worst_ms = 0.0

    def tick() -> None:
        nonlocal told, worst_ms
        lags = [c.lag_ms for lane in runner.lanes for c in lane.channels]
        worst_ms = max([worst_ms, *lags])
        if time.monotonic() - told >= 10:
            told = time.monotonic()
            lost = sum(ring.counts.dropped for ring in player.rings)
            print(
                f"{told - began:.0f} s: lag {max(lags):.0f} ms, overruns {lost}, "
                f"load {os.getloadavg()[0]:.1f}",
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
    audio_s = sum(lane.heard_s for lane in runner.lanes)
    return {
        "audio_s": round(audio_s, 1),
        "overrun_samples": sum(ring.counts.dropped for ring in player.rings),
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
        "player_late_ms": round(player.latest_ms),
        "late_ms": {kind: late.summary() for kind, late in ears.late.items()},
        "labels": ears.late["label"].count,
        "stage_wall_s_per_audio_s": {
            name: round(busy / audio_s, 4) for name, busy in sorted(stages.items())
        },
        "errors": outcome.errors,
    }


if __name__ == "__main__":
    raise SystemExit(main())

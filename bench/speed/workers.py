"""Lanes in worker processes beside one process: ``make bench-channels``.

Four recordings with classifier and RNN-RBM run in turn with one process and with
`workers`; then a bat recorder and an array of 64 channels, each as fast as it goes.
CPU seconds are those of all processes, without those of the start, which a run of one
second of sound measures. Wall time counts from the first event to the end; it means
something on a machine with nothing else to do. With --live the last two run at the pace
of hearing, which shows what is lost.
"""

import argparse
import json
import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("NEUROVOCAL_COMPILED", "1")  # loaded at the start, if at all

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import numpy as np
import soundfile
import yaml
from rich.console import Console
from rich.table import Table

from neurovocal.engine.cli.commands.bench import load, repeated
from neurovocal.engine.cli.session import plan_of
from neurovocal.engine.config.schema import locate_config
from neurovocal.engine.contracts.types import Message
from neurovocal.engine.runtime.runner import Runner

BAT_RATE = 500_000
N_CHANNELS = 64
N_RECORDINGS = 4
SHORT_S = 1.0

# ``make(folder, seconds)`` writes recordings and returns the lanes that read them.
MakeConfig: TypeAlias = Callable[[Path, float], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run took.

    Parameters
    ----------
    what : str
        What was run, in words.
    workers : int
        Processes of the lanes.
    start_s : float
        CPU seconds of the start, of all processes.
    cpu : float
        CPU seconds of all processes for each second of sound, without the start: the
        number of cores that the run takes in real time.
    wall : float
        Seconds of sound of the whole run for each second from the first event on.
    lost : int
        Samples that were lost.
    """

    what: str
    workers: int
    start_s: float
    cpu: float
    wall: float
    lost: int


class Stopwatch:
    """Sink that notes when the first event came."""

    wants = frozenset({"onset", "label", "offset", "anchor"})
    first: float | None = None

    def open(self) -> None:
        """Begin."""

    def write(self, message: Message) -> None:
        """Note the first event."""
        self.first = self.first or time.monotonic()

    def flush(self, timeout: float) -> None:
        """Write nothing."""

    def close(self) -> None:
        """End."""


def measure(what: str, make: MakeConfig, workers: int, audio_s: float) -> Cost:
    """Return the cost of a configuration, with and without the start."""
    start_s, _, _ = run_once(make, workers, SHORT_S)
    cpu_s, wall_s, lost = run_once(make, workers, audio_s)
    cpu = (cpu_s - start_s) / (audio_s - SHORT_S)
    return Cost(what, workers, start_s, cpu, audio_s / wall_s, lost)


def run_once(
    make: MakeConfig, workers: int, audio_s: float
) -> tuple[float, float, int]:
    """Return CPU seconds, seconds from the first event on, and lost samples."""
    with TemporaryDirectory() as folder:
        config = make(Path(folder), audio_s)
        path = Path(folder) / "config.yaml"
        sink = {"plugin": "journal", "options": {"path": f"{folder}/run.sqlite"}}
        whole = {**config, "version": 1, "workers": workers, "sinks": [sink]}
        path.write_text(yaml.safe_dump(whole))
        watch = Stopwatch()
        runner = Runner(plan_of(locate_config(str(path))), [watch])
        before = os.times()
        began = time.monotonic()
        outcome = runner.run()
        ended, after = time.monotonic(), os.times()
    # The processes of the lanes have ended and were waited for: they are counted.
    cpu = sum(after[:4]) - sum(before[:4])
    return cpu, ended - (watch.first or began), outcome.lost_samples


def recordings(config: str, folder: Path, seconds: float) -> dict[str, Any]:
    """Return lanes with copies of the song that ships, with all models."""
    plan, samples, rate = load(config, None, [])
    lanes = []
    bundle = plan.lanes[0].bundle
    assert bundle is not None
    for number in range(N_RECORDINGS):
        path = folder / f"song{number}.wav"
        song = np.roll(repeated(samples, rate, seconds), number * rate, axis=0)
        soundfile.write(path, song, rate)
        lanes.append(
            {
                "name": f"song{number}",
                "source": {"plugin": "file", "options": {"path": str(path)}},
                "bundle": str(bundle.folder),
                "models": [{"plugin": "classifier"}, {"plugin": "rnn_rbm"}],
            }
        )
    return {"lanes": lanes}


def bats(source: str, folder: Path, seconds: float) -> dict[str, Any]:
    """Return two recorders of 500 kHz with calls of 5 ms, ten in a second."""
    path = folder / "bat.wav"
    at = np.arange(round(seconds * BAT_RATE)) / BAT_RATE
    since = at % 0.1
    call = np.sin(2 * np.pi * (90_000 - 6e6 * since) * since) * (since < 0.005)
    noise = np.random.default_rng(0).normal(0, 1e-3, len(at))
    soundfile.write(path, 0.3 * call + noise, BAT_RATE, subtype="FLOAT")
    front = {"frame_length": 1024, "hop_length": 512}
    return {
        "lanes": [
            {
                "name": f"bat{number}",
                "source": {"plugin": source, "options": {"path": str(path)}},
                "features": {"plugin": "spectrogram", "options": front},
                "detector": {"plugin": "energy", "options": {"low_hz": 15_000}},
            }
            for number in range(2)
        ]
    }


def array(config: str, source: str, folder: Path, seconds: float) -> dict[str, Any]:
    """Return an array of 64 channels as two lanes, with detector and classifier."""
    plan, samples, rate = load(config, None, [])
    bundle = plan.lanes[0].bundle
    assert bundle is not None
    song = repeated(samples, rate, seconds)[:, 0]
    columns = [np.roll(song, number * rate // 7) for number in range(N_CHANNELS)]
    path = folder / "array.wav"
    soundfile.write(path, np.stack(columns, axis=1), rate)
    half = N_CHANNELS // 2
    return {
        "lanes": [
            {
                "name": f"array{first}",
                "source": {
                    "plugin": source,
                    "options": {
                        "path": str(path),
                        "channels": [*range(first, first + half)],
                    },
                },
                "bundle": str(bundle.folder),
                "detector": {"plugin": "energy"},
                "models": [{"plugin": "classifier"}],
            }
            for first in (1, half + 1)
        ]
    }


def cost_table(costs: Sequence[Cost]) -> Table:
    """Return the medians of the rounds as a table for people."""
    table = Table(title="Lanes in worker processes", title_justify="left")
    columns = ("what", "workers", "start, s", "cores in real time", "x real time")
    for column in (*columns, "lost"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for what, workers in dict.fromkeys((c.what, c.workers) for c in costs):
        own = [c for c in costs if (c.what, c.workers) == (what, workers)]
        table.add_row(
            what,
            f"{workers}",
            f"{median(c.start_s for c in own):.1f}",
            f"{median(c.cpu for c in own):.2f}",
            f"{median(c.wall for c in own):.1f}",
            f"{sum(c.lost for c in own)}",
        )
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default="demo")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=60.0, help="of each recording")
    parser.add_argument("--array-seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--live", action="store_true", help="at the pace of hearing")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    source = "playback" if options.live else "file"
    short = options.array_seconds
    runs: list[tuple[str, MakeConfig, float]] = [
        ("two recorders of 500 kHz", partial(bats, source), short),
        ("64 channels", partial(array, options.config, source), short),
    ]
    if not options.live:
        four = partial(recordings, options.config)
        runs.insert(0, ("four recordings, all models", four, options.seconds))
    costs = [
        measure(what, make, workers, seconds)
        for _ in range(options.rounds)
        for what, make, seconds in runs
        for workers in options.workers
    ]
    if options.json:
        print(json.dumps([asdict(cost) for cost in costs]))
    else:
        Console(width=100).print(cost_table(costs))


if __name__ == "__main__":
    main()

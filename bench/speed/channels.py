"""CPU time of many channels together beside one channel: ``make bench-channels``.

A lane of one channel and a set of lanes take turns on the same song, on one thread;
printed are medians over the rounds, in microseconds of CPU per frame of each channel,
and how many times more channels a CPU second carries together. Compare figures of one
run only. `singing` is the share of channels with the song; the others have the faint
noise of a room. A bat recorder (one channel at 500 kHz) follows.
"""

import argparse
import json
import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import thread_time_ns

import numpy as np
from rich.console import Console
from rich.table import Table

from neurovocal.engine.cli.commands.bench import load, repeated
from neurovocal.engine.cli.session import plan_of
from neurovocal.engine.config.plan import Plan
from neurovocal.engine.config.schema import locate_config
from neurovocal.engine.contracts.types import Block, Float32, StreamInfo
from neurovocal.engine.lane.builder import build_lane
from neurovocal.engine.lane.lane import Lane
from neurovocal.engine.lane.lane_set import LaneSet

WARM_UP_S = 2.5  # the noise floor settles
ROUND_S = 0.4
BAT_RATE = 500_000
BAT = """
version: 1
source: {plugin: synthetic, options: {sample_rate: 500000, duration_s: 1}}
features: {plugin: spectrogram, options: {frame_length: 1024, hop_length: 512}}
detector: {plugin: energy}
sinks: [{plugin: jsonl, options: {path: events.jsonl}}]
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU time of one channel alone and of many together.

    Parameters
    ----------
    channels, tile : int
        Channels together, frames per call.
    singing : float
        Share of channels with song.
    stages : str
        What was run, in words.
    one_us, many_us : float
        Medians, microseconds per frame of each channel.
    load : float
        CPU seconds per second of sound of all channels together.
    """

    channels: int
    tile: int
    singing: float
    stages: str
    one_us: float
    many_us: float
    load: float

    @property
    def gain(self) -> float:
        """Channel-seconds per CPU second, relative to one channel."""
        return self.one_us / self.many_us


class Array:
    """One lane, and as many as there are channels together, on the same song.

    Parameters
    ----------
    plan : Plan
        The first lane's front end, detector and first models are used.
    n_models, n_channels, tile : int
        What is run.
    """

    def __init__(self, plan: Plan, n_models: int, n_channels: int, tile: int) -> None:
        stages = plan.lanes[0]
        part = replace(stages, models=list(stages.models)[:n_models])
        context = replace(plan.context, tile=tile)
        assert stages.bundle is not None
        self.rate = stages.bundle.manifest.front_end.sample_rate

        def build(channels: int) -> Lane:
            info = StreamInfo("array", self.rate, channels)
            return build_lane(part, info, 0, context, wants_frames=True)

        self._alone = build(1)
        self._lanes = [build(n_channels) for _ in range(n_channels)]
        self._set: LaneSet | None = None
        assert self._alone.features is not None
        self.hop = self._alone.features.stage.hop_length
        self.length = tile * self.hop
        self.position = 0

    def run(self, song: Float32, array: Float32) -> tuple[float, float]:
        """Process the same time both ways; return microseconds per frame and channel.

        Parameters
        ----------
        song : float32[n_samples, 1]
        array : float32[n_samples, n_channels]
        """
        n_frames = len(song) // self.length * self.length / self.hop
        one = [*blocks_of(song, self.length, self.position)]
        many = [*blocks_of(array, self.length, self.position)]
        began = thread_time_ns()
        for block in one:
            for _ in self._alone.process(block):
                pass
        between = thread_time_ns()
        for block in many:
            self._process(block)
        spent = thread_time_ns() - between
        self.position = many[-1].stop
        n_channels = array.shape[1]
        alone_us = (between - began) / 1000 / n_frames
        return alone_us, spent / 1000 / n_frames / n_channels

    def _process(self, block: Block) -> None:
        if self._set is None:
            self._set = LaneSet.join(self._lanes, lambda kind: False)
        if self._set is not None:
            for _ in self._set.process(block):
                pass
            return
        for index, lane in enumerate(self._lanes):
            column = block.samples[:, index : index + 1]
            for _ in lane.process(replace(block, samples=column)):
                pass


def blocks_of(samples: Float32, length: int, start: int) -> Iterator[Block]:
    """Yield whole blocks of a length, the first of which begins at `start`."""
    for at in range(0, len(samples) - length + 1, length):
        yield Block(start + at, samples[at : at + length])


def array_of(song: Float32, n_channels: int, singing: float) -> Float32:
    """Return float32[n_samples, n_channels]: the song at other times, or noise."""
    rng = np.random.default_rng(0)
    n_singing = max(1, round(singing * n_channels))
    columns = [
        np.roll(song[:, 0], int(rng.integers(len(song)))) for _ in range(n_singing)
    ]
    quiet = (n_channels - n_singing, len(song))
    columns += list(rng.normal(0, 1e-4, quiet).astype(np.float32))
    return np.ascontiguousarray(np.stack(columns, axis=1))


def measure(
    plan: Plan,
    song: Float32,
    n_models: int,
    n_channels: int,
    tile: int,
    singing: float,
    rounds: int,
) -> Cost:
    """Return the cost of an array with some models."""
    array = Array(plan, n_models, n_channels, tile)
    rate, step = array.rate, array.length
    both = array_of(song, n_channels, singing)
    warm = round(WARM_UP_S * rate) // step * step
    array.run(song[:warm], both[:warm])
    length = max(1, round(ROUND_S * rate / step)) * step
    spent = []
    for number in range(rounds):
        at = (warm + number * length) % (len(song) - length) // step * step
        spent.append(array.run(song[at : at + length], both[at : at + length]))
    one_us, many_us = (median(each) for each in zip(*spent, strict=True))
    names = [model.config.plugin for model in list(plan.lanes[0].models)[:n_models]]
    load = many_us * n_channels * rate / array.hop / 1e6
    stages = " + ".join(("detector + spectrogram", *names))
    return Cost(n_channels, tile, singing, stages, one_us, many_us, load)


def bat_load(tile: int, seconds: float) -> float:
    """Return CPU seconds per second of sound of one channel at 500 kHz."""
    with TemporaryDirectory() as folder:
        config = Path(folder) / "bat.yaml"
        config.write_text(BAT)
        plan = plan_of(locate_config(str(config), []))
    context = replace(plan.context, tile=tile)
    info = StreamInfo("bat", BAT_RATE)
    lane = build_lane(plan.lanes[0], info, 0, context, wants_frames=True)
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 1e-3, (round(seconds * BAT_RATE), 1)).astype(np.float32)
    blocks = [*blocks_of(samples, BAT_RATE // 100, 0)]
    warm = len(blocks) // 2
    for block in blocks[:warm]:
        for _ in lane.process(block):
            pass
    began = thread_time_ns()
    for block in blocks[warm:]:
        for _ in lane.process(block):
            pass
    return (thread_time_ns() - began) / 1e9 / (seconds / 2)


def cost_table(costs: Sequence[Cost]) -> Table:
    """Return the costs as a table for people."""
    table = Table(title="CPU of many channels", title_justify="left")
    for column in (
        *("channels", "tile", "singing", "stages"),
        *("one, us", "each of many, us", "gain", "load, cores"),
    ):
        table.add_column(column, justify="left" if column == "stages" else "right")
    for cost in costs:
        table.add_row(
            f"{cost.channels}",
            f"{cost.tile}",
            f"{cost.singing:.0%}",
            cost.stages,
            f"{cost.one_us:.1f}",
            f"{cost.many_us:.2f}",
            f"{cost.gain:.1f}",
            f"{cost.load:.2f}",
        )
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default="demo")
    parser.add_argument("--channels", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--tiles", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--singing", type=float, nargs="+", default=[1.0, 0.125])
    parser.add_argument("--models", type=int, default=2, help="how many of them")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    console = Console(width=110)
    plan, samples, rate = load(options.config, None, [])
    song = repeated(samples, rate, 12.0)
    costs = [
        measure(plan, song, n_models, n, tile, singing, options.rounds)
        for n_models in range(options.models + 1)
        for n in options.channels
        for tile in options.tiles
        for singing in options.singing
    ]
    if not options.json:
        console.print(cost_table(costs))
    bats = {tile: bat_load(tile, 4.0) for tile in options.tiles}
    if options.json:
        rows = [{**asdict(cost), "gain": cost.gain} for cost in costs]
        print(json.dumps({"channels": rows, "bat_load": bats}))
        return
    for tile, load_s in bats.items():
        console.print(
            f"one channel at 500 kHz, frames of 2 ms every 1 ms, tile {tile}: "
            f"{load_s:.2f} cores"
        )


if __name__ == "__main__":
    main()

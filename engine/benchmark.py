"""How fast the engine is, and how late: the measurements behind ``neurovocal bench``.

Speed is audio seconds per CPU second of this process (user and system), so that a
busy machine does not enter; latency is wall time and does depend on it.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from neurovocal.engine.build import build_lane
from neurovocal.engine.lane_worker import LaneWorker
from neurovocal.engine.plan import LanePlan, Plan
from neurovocal.engine.runner import Runner
from neurovocal.engine.types import Block, Float32, StreamInfo


@dataclass(frozen=True, slots=True)
class Speed:
    """Speed of one composition of a lane.

    ``stages_us`` is the CPU time of each stage per frame length of audio (one
    hop), ``x_real_time`` that of the whole lane, block handling included.
    """

    tile: int
    block_ms: float
    stages: str
    x_real_time: float
    stages_x: dict[str, float]


def measure_speed(
    plan: Plan, samples: Float32, sample_rate: int, tiles: tuple[int, ...]
) -> Iterator[Speed]:
    """Speed of the first lane of a plan: bare, then with each further model.

    Parameters
    ----------
    plan : Plan
        What is measured; its source and sinks are not used.
    samples : float32[n_samples, 1]
        Audio to run through the lane.
    sample_rate : int
        Of the audio, in Hz.
    tiles : tuple of int
        Frames per network call; the audio comes in blocks of as many hops.

    Yields
    ------
    Speed
        One for each tile and each number of models.
    """
    lane = plan.lanes[0]
    for tile in tiles:
        for n_models in range(len(lane.models) + 1):
            part = replace(lane, models=list(lane.models)[:n_models])
            yield _lane_speed(plan, part, samples, sample_rate, tile)


def _lane_speed(
    plan: Plan, part: LanePlan, samples: Float32, rate: int, tile: int
) -> Speed:
    context = replace(plan.context, tile=tile)
    info = StreamInfo("bench", rate, 1)
    built = build_lane(
        part, info, 0, context, wants_frames=True, timer=time.thread_time_ns
    )
    hop = built.features.stage.hop_length if built.features else 128
    length = max(1, round(tile * hop * rate / built.info.sample_rate))
    blocks = [
        Block(start, samples[start : start + length])
        for start in range(0, len(samples), length)
    ]
    warm_up = min(len(blocks) // 10 + 1, 50)
    for block in blocks[:warm_up]:
        for _ in built.process(block):
            pass
    for stage in built.stages:
        stage.metrics.busy_ns = 0
    began = time.process_time()
    for block in blocks[warm_up:]:
        for _ in built.process(block):
            pass
    spent_s = time.process_time() - began
    audio_s = sum(len(block.samples) for block in blocks[warm_up:]) / rate
    return Speed(
        tile=tile,
        block_ms=length * 1000 / rate,
        stages=" + ".join(stage.name.split("'")[1] for stage in built.stages),
        x_real_time=audio_s / spent_s,
        stages_x={
            stage.name: audio_s / max(stage.metrics.busy_ns / 1e9, 1e-9)
            for stage in built.stages
        },
    )


def measure_latency(plan: Plan) -> tuple[list[LaneWorker], float]:
    """Run a plan as it is (its source should be paced) and return its lanes.

    Returns
    -------
    lanes : list of LaneWorker
        Their ``ledgers`` hold the percentiles by kind of event.
    load : float
        CPU seconds per second of wall time.
    """
    runner = Runner(plan)
    wall, cpu = time.monotonic(), time.process_time()
    runner.run()
    spent = time.process_time() - cpu
    return runner.lanes, spent / (time.monotonic() - wall)


def repeated(samples: Float32, sample_rate: int, seconds: float) -> Float32:
    """The audio again and again until it lasts `seconds`, float32[n_samples, 1]."""
    wanted = max(1, round(seconds * sample_rate))
    times = -(-wanted // len(samples))
    return np.tile(samples, (times, 1))[:wanted]

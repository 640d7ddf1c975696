"""``neurovocal bench``: speed and latency on this machine."""

import dataclasses
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from os.path import isfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import soundfile
import typer
from rich.console import Console
from rich.table import Table

from neurovocal.engine.cli.session import SetOption, plan_of
from neurovocal.engine.config.plan import LanePlan, Plan
from neurovocal.engine.config.schema import locate_config
from neurovocal.engine.contracts.errors import AudioFileError, ConfigError
from neurovocal.engine.contracts.types import Block, Float32, StreamInfo
from neurovocal.engine.lane.builder import build_lane
from neurovocal.engine.runtime.runner import Runner
from neurovocal.engine.runtime.workers.lane_worker import LaneWorker
from neurovocal.engine.support.text import printable


@dataclass(frozen=True, slots=True)
class Speed:
    """Speed of a lane with some of its models.

    Parameters
    ----------
    tile : int
        Frames per network call.
    block_ms : float
        Length of the blocks.
    stages : str
        Names of the stages, in order.
    x_real_time : float
        Seconds of audio per second of CPU time, block handling included.
    stages_x : dict of str to float
        The same for each stage alone.
    """

    tile: int
    block_ms: float
    stages: str
    x_real_time: float
    stages_x: dict[str, float]


def measure_speed(
    plan: Plan, samples: Float32, sample_rate: int, tiles: tuple[int, ...]
) -> Iterator[Speed]:
    """Measure the first lane of a plan: without models, then with one more each.

    Parameters
    ----------
    plan : Plan
        Its source and sinks are not used.
    samples : float32[n_samples, 1]
        Audio to run through the lane.
    sample_rate : int
        Rate of the audio, in Hz.
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
    """Run a plan with a paced source, and return its lanes.

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
    return runner.local_lanes, spent / (time.monotonic() - wall)


def repeated(samples: Float32, sample_rate: int, seconds: float) -> Float32:
    """Return the audio, repeated until it lasts `seconds`, float32[n_samples, 1]."""
    wanted = max(1, round(seconds * sample_rate))
    times = -(-wanted // len(samples))
    return np.tile(samples, (times, 1))[:wanted]


_LATENCY_KINDS = ("onset", "label", "frames")


def bench(
    recording: Annotated[
        str | None, typer.Argument(help="Recording; default: the one that ships.")
    ] = None,
    config: Annotated[
        str, typer.Option("--config", metavar="C", help="Whose lane is measured.")
    ] = "demo",
    seconds: Annotated[
        float, typer.Option(min=1.0, help="Audio seconds per measurement.")
    ] = 30.0,
    live_seconds: Annotated[
        float, typer.Option(min=0.0, help="Length of the paced run; 0 leaves it out.")
    ] = 10.0,
    set_: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON for programs.")] = False,
) -> None:
    """Measure speed per stage, and the latency ledger of a run in real time.

    Speed is audio seconds per CPU second. Figures of a shared machine vary:
    compare those of one run with each other.
    """
    overrides = list(set_ or [])
    plan, samples, rate = load(config, recording, overrides)
    console = Console(stderr=True)
    if (told := _measured(plan)) is not None:
        typer.echo(printable(f"note: {told}"), err=True)
    audio = repeated(samples, rate, seconds)
    with console.status("measuring speed"):
        speeds = list(measure_speed(plan, audio, rate, (1, 8, 25)))
    latency: dict[str, Any] = {}
    if live_seconds:
        with console.status(f"running {live_seconds:g} s in real time"):
            latency = live(config, samples, rate, live_seconds, overrides)
    if as_json:
        rows = [dataclasses.asdict(speed) for speed in speeds]
        typer.echo(json.dumps({"speed": rows, "latency": latency}))
        return
    Console().print(speed_table(speeds))
    if latency:
        Console().print(latency_table(latency))


def _measured(plan: Plan) -> str | None:
    """Return a sentence if a plan has more lanes or channels than are measured."""
    lane = plan.lanes[0]
    numbers = getattr(lane.source.options, "channels", None)
    n_channels = len(numbers) if isinstance(numbers, list) else 1
    if len(plan.lanes) == 1 and n_channels == 1:
        return None
    others = f"it has {len(plan.lanes)} lanes" if len(plan.lanes) > 1 else ""
    if n_channels > 1:
        others += f"{', and' if others else 'it has'} {n_channels} channels"
    return (
        f"one channel of lane '{lane.name}' is measured, and {others}: each further "
        "one costs as much, or less where channels are computed together"
    )


def load(
    config: str, recording: str | None, overrides: list[str]
) -> tuple[Plan, Any, int]:
    """Return a plan, the recording as float32[n_samples, 1], and its rate in Hz."""
    plan = plan_of(locate_config(config, overrides))
    source = plan.lanes[0].source
    path = plan.context.path(recording or str(getattr(source.options, "path", "")))
    if not isfile(path):
        raise ConfigError(
            f"'{path}' is no recording: name one, as in 'neurovocal bench a.wav'"
        )
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise AudioFileError(
            f"'{path}' cannot be read as audio: name a WAV or FLAC recording"
        ) from error
    if not len(samples):
        raise AudioFileError(f"'{path}' holds no samples")
    return plan, samples[:, :1].copy(), int(rate)


def live(
    config: str, samples: Float32, rate: int, seconds: float, overrides: list[str]
) -> dict[str, Any]:
    """Return percentiles of the latency ledger while audio plays in real time."""
    with TemporaryDirectory(prefix="neurovocal-bench-") as folder:
        path = Path(folder) / "bench.wav"
        soundfile.write(path, repeated(samples, rate, seconds), rate, subtype="FLOAT")
        options = {"path": str(path), "pace": "realtime"}
        paced = [
            *overrides,
            f"source={json.dumps({'plugin': 'file', 'options': options})}",
            # A free port of the system's choice.
            'sinks=[{"plugin": "zmq", "options": {"endpoint": "tcp://127.0.0.1:*"}}]',
        ]
        plan = plan_of(locate_config(config, paced))
        lanes, cpu_share = measure_latency(plan)
    ledgers = lanes[0].publisher.ledgers
    report = {k: ledgers[k].summary() for k in _LATENCY_KINDS if k in ledgers}
    return {"cpu_share": round(cpu_share, 4), **report}


def speed_table(speeds: list[Speed]) -> Table:
    """Return speeds as a table for people."""
    table = Table(title="audio seconds per CPU second", title_justify="left")
    for column in ("tile", "block", "lane", "x real time", "of each stage alone"):
        table.add_column(column)
    for speed in speeds:
        alone = ", ".join(
            f"{name.split(chr(39))[1]} {x:.0f}" for name, x in speed.stages_x.items()
        )
        table.add_row(
            str(speed.tile),
            f"{speed.block_ms:.1f} ms",
            speed.stages,
            f"{speed.x_real_time:.1f}",
            alone,
        )
    return table


def latency_table(latency: dict[str, Any]) -> Table:
    """Return the ledger's percentiles as a table for people."""
    title = f"latency in real time, ms ({latency['cpu_share']:.1%} of a core)"
    table = Table("event", "part", "p50", "p95", "p99", "max", title=title)
    for kind, parts in latency.items():
        if isinstance(parts, dict):
            for part, values in parts.items():
                row = [f"{values[key]:.2f}" for key in ("p50", "p95", "p99", "max")]
                table.add_row(kind, part.removesuffix("_ms"), *row)
    return table

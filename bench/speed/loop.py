"""Latency of a closed loop, from the onset of a sound to the start of the answer.

A syllable of the shipped recording is played into a virtual room repeatedly, at random
intervals; a running engine records the room and plays its answer into it. Both are
recorded by one recorder on one sample clock, and their distance is counted in samples.

``floor`` is the same without the engine: a small program that answers the first loud
sample, block by block, which measures the latency of the devices alone.

    .venv/bin/python bench/speed/loop.py --triggers 500
"""

import argparse
import csv
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import yaml
from loop_room import LOUDSPEAKER, MICROPHONE, RATE, Room
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

ROOT = Path(__file__).resolve().parents[2]
RECORDING = ROOT / "configs" / "recordings" / "bengalese-finch.flac"
MODES = ("floor", "onset", "provisional")
LEAD_S = 3.0  # the detector learns what silence is
INTERVAL_S = (0.33, 0.43)
ANSWER_S = 0.3  # an answer that comes later is none
ROUND = 100  # triggers for which an engine is started
UNIT = "a"
SHARES = (50, 95, 99)
PARTS = ("wait_ms", "queue_ms", "compute_ms", "handover_ms", "device_ms", "total_ms")

# Two callbacks, and one flag between them.
FLOOR = """
import sys, time
import numpy as np
from neurovocal.plugins.devices.choice import find_device
from neurovocal.plugins.devices.portaudio import open_input, open_output
rate, block = {rate}, {block}
asked, last = [], [0.0]
def listen(data, n, now, status):
    loud = np.abs(data[:, 0]).max() > 0.02
    if loud and time.monotonic() - last[0] > 0.2:
        last[0] = time.monotonic()
        asked.append(1)
def answer(out, n, now, status):
    out[:] = 0
    if asked:
        asked.pop()
        out[:, 1] = 0.5
inp = open_input(find_device("{microphone}", "input"), rate, 2, latency="{input}",
                 callback=listen)
out = open_output(find_device("{loudspeaker}", "output"), rate, 2, blocksize=block,
                  latency="low", callback=answer)
time.sleep(1e6)
"""


def main() -> int:
    """Measure the requested modes; 2 if a trigger was not answered."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--triggers", type=int, default=500)
    parser.add_argument("--mode", choices=MODES, action="append")
    parser.add_argument("--block-ms", type=float, default=5.0)
    parser.add_argument("--input", choices=("low", "high"), default="low")
    parser.add_argument(
        "--keep", type=Path, help="Folder; measure_rounds in it are not redone."
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows = {}
    for mode in arguments.mode or MODES:
        rows[mode] = summary(*measure_rounds(mode, arguments))
        load = os.getloadavg()[0]
        print(json.dumps({"mode": mode, "load": round(load, 1), **rows[mode]}))
    print(table(rows))
    return 2 if any(row["unanswered"] for row in rows.values()) else 0


def measure_rounds(
    mode: str, arguments: argparse.Namespace
) -> tuple[NDArray[np.float64], list[dict[str, Any]]]:
    """Measure all rounds of a mode, each with its own room, engine and seed."""
    delays: list[float] = []
    ledger: list[dict[str, Any]] = []
    for number in range(-(-arguments.triggers // ROUND)):
        count = min(ROUND, arguments.triggers - number * ROUND)
        kept = arguments.keep and arguments.keep / f"{mode}-{number}-{count}.json"
        if kept and kept.exists():
            found, logged = json.loads(kept.read_text())
        else:
            rng = np.random.default_rng([arguments.seed, number])
            with Room() as room:
                found, logged = measure(room, mode, count, rng, arguments)
            if kept:
                kept.write_text(json.dumps([found, logged]))
        delays += found
        ledger += logged
    return np.array(delays, np.float64), ledger


def measure(
    room: Room,
    mode: str,
    count: int,
    rng: np.random.Generator,
    arguments: argparse.Namespace,
) -> tuple[list[float], list[dict[str, Any]]]:
    """Return delays in ms, NaN without an answer, and the engine's own log."""
    sound = burst() if mode == "floor" else syllable()
    stimulus, starts = stimulus_of(sound, count, rng)
    log = room.home / "log.jsonl"
    if mode == "floor":
        block = round(arguments.block_ms / 1000 * RATE)
        names = {"microphone": MICROPHONE, "loudspeaker": LOUDSPEAKER}
        script = FLOOR.format(rate=RATE, block=block, input=arguments.input, **names)
        process = room.start([sys.executable, "-c", script])
    else:
        config = room.home / "loop.yaml"
        config.write_text(yaml.safe_dump(configuration(room, mode, arguments, log)))
        command = "from neurovocal.engine.cli import main; main()"
        process = room.start(
            [sys.executable, "-c", command, "run", str(config), "--plain"]
        )
    room.wait_for_recorder()
    player = room.play(stimulus)
    seconds = range(round(len(stimulus) / RATE))
    for _ in track(seconds, f"{mode}: playing", console=Console(stderr=True)):
        time.sleep(1.0)
    player.wait()
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    process.wait(30)
    recorded = room.recorded()
    text = log.read_text() if log.exists() else ""
    logged = [json.loads(line) for line in text.splitlines()]
    return delays_in(recorded, sound, starts).tolist(), logged


def syllable() -> NDArray[np.float32]:
    """Return one annotated unit of the shipped recording."""
    annotations = RECORDING.parent / "annotations.csv"
    with annotations.open() as file:
        row = next(row for row in csv.DictReader(file) if row["label"] == UNIT)
    first, stop = (round(float(row[key]) * RATE) for key in ("onset_s", "offset_s"))
    samples, rate = soundfile.read(RECORDING, start=first, stop=stop, dtype="float32")
    assert rate == RATE
    return np.asarray(samples)


def burst() -> NDArray[np.float32]:
    """Return 50 ms of noise with a loud first sample."""
    noise = np.random.default_rng(1).uniform(-0.3, 0.3, RATE // 20)
    noise[0] = 0.3
    return noise.astype(np.float32)


def stimulus_of(
    sound: NDArray[np.float32], count: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return `count` sounds over faint noise, and their first samples."""
    steps = rng.uniform(*INTERVAL_S, count)
    starts = ((LEAD_S + np.cumsum(steps)) * RATE).astype(np.int64)
    samples = rng.normal(0, 1e-4, starts[-1] + RATE).astype(np.float32)
    for start in starts:
        samples[start : start + len(sound)] += sound
    return samples, starts


def configuration(
    room: Room, mode: str, arguments: argparse.Namespace, log: Path
) -> dict[str, Any]:
    """Return a configuration with tile 1 and a click on the right channel as answer."""
    click = np.zeros((RATE // 200, 2), np.float32)
    click[:, 1] = 0.5
    soundfile.write(room.home / "click.wav", click, RATE, subtype="FLOAT")
    play = {
        "path": str(room.home / "click.wav"),
        "device": LOUDSPEAKER,
        "latest_ms": 5000,
        "block_ms": arguments.block_ms,
    }
    trigger = {
        "pattern": ".",
        "status": mode,
        "posterior": 0,
        "refractory_ms": 200,
        "play": play,
        "log": str(log),
    }
    source = {
        "device": MICROPHONE,
        "sample_rate": RATE,
        "channels": [1],
        "latency": arguments.input,
    }
    return {
        "version": 1,
        "tile": 1,
        "source": {"plugin": "microphone", "options": source},
        "bundle": str(ROOT / "models" / "pretrained" / "bengalese-finch"),
        "models": [{"plugin": "classifier"}],
        "sinks": [{"plugin": "trigger", "options": trigger}],
    }


def delays_in(
    recorded: NDArray[np.float32],
    sound: NDArray[np.float32],
    starts: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return the delay from each sound to its answer, in ms.

    The player may have paused on a busy machine, so each sound is searched by itself.
    """
    left, right = recorded[:, 0], np.abs(recorded[:, 1]) > 0.2
    # The first loud sample lies in the first sound; the second is not yet near.
    first = int(np.argmax(np.abs(left) > 0.01)) - RATE // 10
    shift = find_sound(left, sound, first, RATE // 8) - int(starts[0])
    delays = np.full(len(starts), np.nan)
    for index, start in enumerate(starts):
        at = find_sound(left, sound, shift + int(start) - RATE // 20, RATE // 8)
        shift = at - int(start)
        answer = right[at : at + round(ANSWER_S * RATE)]
        if answer.any():
            delays[index] = int(np.argmax(answer)) / RATE * 1000
    return delays


def find_sound(
    recorded: NDArray[np.float32], sound: NDArray[np.float32], first: int, length: int
) -> int:
    """Return the position of the sound in ``[first, first + length)``."""
    first = max(0, first)
    part = recorded[first : first + length + len(sound)]
    return first + int(np.argmax(np.correlate(part, sound, "valid")))


def summary(
    delays: NDArray[np.float64], ledger: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return percentiles of the measured delays, and of the engine's ledger."""
    answered = delays[np.isfinite(delays)]
    row: dict[str, Any] = {
        "triggers": len(delays),
        "unanswered": int(np.isnan(delays).sum()),
        "measured_ms": percentiles(answered),
    }
    outcomes = [line["outcome"] for line in ledger]
    row["outcomes"] = {outcome: outcomes.count(outcome) for outcome in set(outcomes)}
    played = [line for line in ledger if line["outcome"] == "played"]
    if played:
        row["ledger"] = {
            part: percentiles(np.array([line[part] for line in played]))
            for part in PARTS
        }
    return row


def percentiles(values: NDArray[np.float64]) -> dict[str, float]:
    """Return p50, p95 and p99, to a tenth."""
    if not len(values):
        return {}
    found = np.percentile(values, SHARES)
    return {f"p{s}": round(float(v), 1) for s, v in zip(SHARES, found, strict=True)}


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Return the measured delays as Markdown."""
    lines = ["| | triggers | unanswered | p50 ms | p95 ms | p99 ms |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for mode, row in rows.items():
        cells = [mode, row["triggers"], row["unanswered"]]
        cells += [row["measured_ms"].get(f"p{share}", "") for share in SHARES]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

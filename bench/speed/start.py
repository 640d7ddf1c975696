"""Time to start and memory: help texts, first label of the demo, lanes.

Each figure is of fresh processes: the wall-clock and CPU time of ``--help``, the time
from the start of ``neurovocal run demo`` to its first label, and the memory of engines
with 1 to 8 lanes that run all models. Run it on an idle machine, and twice: the first
run reads everything from the disk.

    .venv/bin/python bench/speed/start.py
"""

import argparse
import json
import os
import re
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[2]
RECORDING = ROOT / "configs" / "recordings" / "bengalese-finch.flac"
COMMAND = [sys.executable, "-c", "from neurovocal.engine.cli import main; main()"]
COMMANDS = ("", "run", "check", "label", "listen", "plugins", "monitor", "train")
SECTIONS = ("help", "label", "memory")
MIB = 1024.0


class Spent(NamedTuple):
    """Seconds that a process took."""

    wall: float
    cpu: float


def environment() -> dict[str, str]:
    """Return the environment of a start that reads and writes compiled modules."""
    left_out = "PYTHONDONTWRITEBYTECODE"
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return {k: v for k, v in os.environ.items() if k != left_out} | threads


def run_to_end(arguments: Sequence[str]) -> Spent:
    """Run a command to its end; return its wall-clock and CPU time, in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run(
        [*COMMAND, *arguments], check=True, stdout=subprocess.DEVNULL, env=environment()
    )
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Spent(wall, cpu)


def print_help_times(repeats: int) -> None:
    """Print the time of the help text of some commands."""
    print("| help of | wall s: median (least) | CPU s: median (least) |")
    print("| --- | --: | --: |")
    for name in COMMANDS:
        arguments = [name, "--help"] if name else ["--help"]
        run_to_end(arguments)  # compiles, and reads the files
        spent = [run_to_end(arguments) for _ in range(repeats)]
        columns = [[s.wall for s in spent], [s.cpu for s in spent]]
        texts = [f"{statistics.median(c):.2f} ({min(c):.2f})" for c in columns]
        print(f"| {name or 'neurovocal'} | {' | '.join(texts)} |", flush=True)


def free_port() -> int:
    """Return a port that was free just now."""
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        return int(own.getsockname()[1])


def own_ports() -> list[str]:
    """Return settings that move the demo's sockets to free ports."""
    settings = ("sinks.0.options.endpoint=tcp://", "sinks.1.options.endpoint=")
    texts = [f"{text}127.0.0.1:{free_port()}" for text in settings]
    return [part for text in texts for part in ("--set", text)]


def seconds_to_first_label() -> float:
    """Start the demo and return the time to the line of its first label."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [*COMMAND, "run", "demo", "--json", *own_ports()],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(),
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["kind"] == "label":
                return time.perf_counter() - began
        raise SystemExit("the demo ended without a label")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def sound_before_first_label() -> float:
    """Return the seconds of the demo's recording that its first label needs."""
    import soundfile

    from neurovocal.engine.cli.session import plan_of
    from neurovocal.engine.config.schema import locate_config
    from neurovocal.engine.contracts.types import Block, Label, StreamInfo
    from neurovocal.engine.lane.builder import build_lane

    plan = plan_of(locate_config("demo", []))
    samples, rate = soundfile.read(RECORDING, dtype="float32", always_2d=True)
    context = replace(plan.context, tile=plan.config.shared.tile)
    info = StreamInfo("demo", rate)
    lane = build_lane(
        plan.lanes[0], info, 0, context, wants_frames=False, wants_trace=False
    )
    length = rate // 100
    for start in range(0, len(samples), length):
        for step in lane.process(Block(start, samples[start : start + length])):
            if any(isinstance(event, Label) for event in step.events):
                return (start + length) / rate
    raise SystemExit("the demo's recording has no label")


def print_first_label(repeats: int) -> None:
    """Print the time from the start of the demo to its first label."""
    sound_s = sound_before_first_label()
    found = [seconds_to_first_label() for _ in range(repeats + 1)][1:]
    print("| first label of the demo | s: median (least) |")
    print("| --- | --: |")
    print(f"| from the start | {statistics.median(found):.2f} ({min(found):.2f}) |")
    print(f"| sound that it needs | {sound_s:.2f} |")
    left = [each - sound_s for each in found]
    print(f"| all else | {statistics.median(left):.2f} ({min(left):.2f}) |")


def memory_mb(pid: int) -> dict[str, float]:
    """Return resident, proportional and private dirty memory of a process in MiB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kib = dict(re.findall(r"^(\w+): +(\d+) kB", text, re.MULTILINE))
    return {name: int(kib[name]) / MIB for name in ("Rss", "Pss", "Private_Dirty")}


def lanes_config(n_lanes: int, web: bool) -> dict[str, Any]:
    """Return a configuration of lanes that each play the demo's recording."""
    lane = {
        "source": {
            "plugin": "file",
            "options": {"path": str(RECORDING), "pace": "realtime"},
        },
        "bundle": "bengalese-finch",
        "models": [
            {"plugin": "classifier"},
            {"plugin": "rnn_rbm", "options": {"synthesis": "predict", "seed": 7}},
        ],
    }
    sinks: list[dict[str, Any]] = [
        {"plugin": "zmq", "options": {"endpoint": "tcp://127.0.0.1:*"}}
    ]
    if web:
        sinks.append({"plugin": "web", "options": {"endpoint": "127.0.0.1:0"}})
    lanes = [{"name": f"lane{number}", **lane} for number in range(n_lanes)]
    return {"version": 1, "station": "memory", "lanes": lanes, "sinks": sinks}


def memory_of(n_lanes: int, web: bool, seconds: float) -> dict[str, float]:
    """Run an engine for some seconds and return its memory then."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "lanes.yaml"
        config.write_text(yaml.safe_dump(lanes_config(n_lanes, web)))
        process = subprocess.Popen(
            [*COMMAND, "run", str(config), "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(),
        )
        try:
            assert process.stdout is not None
            os.set_blocking(process.stdout.fileno(), False)
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                time.sleep(0.1)
                process.stdout.read()
            return memory_mb(process.pid)
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)


def print_memory(seconds: float) -> None:
    """Print the memory of engines with 1 to 8 lanes."""
    print(
        "| lanes, all models | resident MiB | proportional | private | each further |"
    )
    print("| --- | --: | --: | --: | --: |")
    for web in (False, True):
        first: dict[str, float] = {}
        for n_lanes in (1, 2, 8) if not web else (1,):
            used = memory_of(n_lanes, web, seconds)
            first = first or used
            more = ""
            if n_lanes > 1:
                more = f"{(used['Rss'] - first['Rss']) / (n_lanes - 1):.1f}"
            name = f"{n_lanes}, and the page" if web else f"{n_lanes}"
            values = " | ".join(f"{value:.0f}" for value in used.values())
            print(f"| {name} | {values} | {more} |", flush=True)


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--seconds", type=float, default=12.0, help="of each memory run"
    )
    parser.add_argument("--only", choices=SECTIONS)
    arguments = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    if arguments.only in (None, "help"):
        print_help_times(arguments.repeats)
    if arguments.only in (None, "label"):
        print_first_label(arguments.repeats)
    if arguments.only in (None, "memory"):
        print_memory(arguments.seconds)
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Cost and latency of the live page: processor time of its threads, lateness of labels.

The shipped recording is played in real time, as a sound card delivers it, labelled by
the shipped bundle, and shown to 0, 1 and 10 browsers (WebSocket clients in a process of
their own that read everything). Measured are

* the processor time of the sink's and the server's thread, as a share of a core;
* from the moment at which the engine knows a label to its arrival at the browser;
* from the end of the sound to the arrival of its first label (of a segment, whether
  provisional or final), by the sample clock's time of day;
* samples that were lost at the source, and columns that were dropped.

    .venv/bin/python bench/speed/page.py --seconds 60
"""

import argparse
import asyncio
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import websockets
from rich.console import Console
from rich.table import Table

from neurovocal.engine.cli.session import Display, plan_of_data
from neurovocal.engine.contracts.types import Label, Message
from neurovocal.engine.runtime.runner import Runner

ROOT = Path(__file__).resolve().parents[2]
RECORDING = ROOT / "configs" / "recordings" / "bengalese-finch.flac"
SHARES = (50, 95, 99)
TICKS_PER_S = 100  # of /proc/*/stat
WARM_UP_S = 5.0
PATIENCE_S = 60.0
THREADS = {"server": "nv-web", "sink": "nv-sink"}


class LabelTimes(Display):
    """Observer that notes when the engine knew each label, and its sound's end."""

    wants = frozenset({"label"})

    def __init__(self) -> None:
        self.known_ns: dict[int, int] = {}
        self.ended_ns: dict[int, int] = {}
        self.segments: dict[int, int] = {}

    def write(self, message: Message) -> None:
        """Note the times of a label."""
        event = message.event
        if not isinstance(event, Label) or not message.emitted_ns:
            return
        self.known_ns[message.seq] = message.emitted_ns
        self.segments[message.seq] = event.segment
        if event.offset is not None and message.utc_ns is not None:
            length_ns = (event.offset - event.onset) * 10**9 // message.info.sample_rate
            self.ended_ns[event.segment] = message.utc_ns + length_ns


async def watch(url: str, viewers: int) -> None:
    """Read everything; print the time of arrival of the labels, as JSON, at the end."""
    arrived: dict[int, list[int]] = {}
    counts: Counter[str] = Counter()
    begun: list[int] = []

    async def view(number: int) -> None:
        async with websockets.connect(url, compression=None, max_size=None) as page:
            async for message in page:
                if isinstance(message, bytes):
                    counts["columns"] += 1
                    continue
                now_ns, utc_ns = time.monotonic_ns(), time.time_ns()
                if '"type":"hello"' in message:
                    begun.append(now_ns)
                elif '"kind":"label"' in message and number == 0:
                    seq = json.loads(message)["header"]["seq"]
                    arrived.setdefault(seq, [now_ns, utc_ns])
                elif '"type":"dropped"' in message:
                    counts["dropped"] = json.loads(message)["columns"]
                counts["texts"] += 1

    try:
        async with asyncio.timeout(float(sys.stdin.readline())):
            await asyncio.gather(*map(view, range(viewers)))
    except (TimeoutError, websockets.ConnectionClosed):
        pass
    print(json.dumps({"arrived": arrived, "begun_ns": max(begun), **counts}))


def thread_seconds(prefix: str) -> float:
    """Processor time so far of this process's threads with a name."""
    total = 0.0
    for thread in threading.enumerate():
        if thread.name.startswith(prefix) and thread.native_id:
            stat = Path(f"/proc/self/task/{thread.native_id}/stat").read_text()
            user, system = stat.rpartition(")")[2].split()[11:13]
            total += (int(user) + int(system)) / TICKS_PER_S
    return total


def address_of(runner: Runner) -> str:
    """Address of the page of a run, once it is served."""
    until_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s:
        for worker in runner.sinks:
            server = getattr(worker.supervised.sink, "_server", None)
            if server is not None:
                return str(server.url)
        time.sleep(0.05)
    raise SystemExit("the page was not served in time")


def measure(viewers: int, seconds: float) -> dict[str, Any]:
    """Play the recording for so long, before so many browsers."""
    times = LabelTimes()
    options = {"path": str(RECORDING), "repeat": 0}
    data: dict[str, Any] = {
        "version": 1,
        "source": {"plugin": "playback", "options": options},
        "bundle": "bengalese-finch",
        "models": [
            {"plugin": "classifier"},
            {"plugin": "rnn_rbm", "options": {"synthesis": "predict", "seed": 7}},
        ],
        "sinks": [{"plugin": "web", "options": {"endpoint": "127.0.0.1:0"}}],
    }
    runner = Runner(plan_of_data(data, ROOT), [times])
    thread = threading.Thread(target=runner.run)
    thread.start()
    url = address_of(runner).replace("http", "ws", 1) + "ws"
    process = None
    if viewers:
        process = subprocess.Popen(
            [sys.executable, __file__, "--watch", url, "--viewers", str(viewers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write(f"{seconds + 2 * WARM_UP_S}\n")
        process.stdin.flush()
    time.sleep(WARM_UP_S)
    before = {name: thread_seconds(prefix) for name, prefix in THREADS.items()}
    time.sleep(seconds)
    share = {
        name: (thread_seconds(prefix) - before[name]) / seconds
        for name, prefix in THREADS.items()
    }
    seen = {} if process is None else json.loads(process.communicate()[0])
    lost = sum(lane.reader.lost_samples for lane in runner.lanes)
    runner.stop()
    thread.join()
    known: list[float] = []
    late: dict[int, float] = {}
    for seq, (at_ns, utc_ns) in seen.get("arrived", {}).items():
        known_ns = times.known_ns.get(int(seq), 0)
        if known_ns < seen["begun_ns"]:
            continue  # it was known before all browsers had come
        known.append((at_ns - known_ns) / 1e6)
        segment = times.segments[int(seq)]
        if segment in times.ended_ns and segment not in late:
            late[segment] = (utc_ns - times.ended_ns[segment]) / 1e6
    return {
        "viewers": viewers,
        "share": share,
        "known_ms": known,
        "sound_ms": list(late.values()),
        "lost": lost,
        "dropped": seen.get("dropped", 0),
    }


def _percentiles(values: list[float]) -> str:
    if not values:
        return ""
    return " / ".join(f"{x:.1f}" for x in np.percentile(values, SHARES))


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--viewers", type=int, nargs="+", default=[0, 1, 10])
    parser.add_argument("--watch", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.watch:
        asyncio.run(watch(arguments.watch, arguments.viewers[0]))
        return
    table = Table("browsers", "sink thread", "server thread", "labels")
    table.add_column("known to page, ms\np50 / p95 / p99")
    table.add_column("sound's end to first label, ms\np50 / p95 / p99")
    table.add_column("samples lost")
    table.add_column("columns dropped")
    for viewers in arguments.viewers:
        row = measure(viewers, arguments.seconds)
        table.add_row(
            str(viewers),
            f"{row['share']['sink']:.1%}",
            f"{row['share']['server']:.1%}",
            str(len(row["known_ms"])),
            _percentiles(row["known_ms"]),
            _percentiles(row["sound_ms"]),
            str(row["lost"]),
            str(row["dropped"]),
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()

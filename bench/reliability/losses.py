"""Outages of a stream and of a sound card, and the length of their gaps.

*stream*: a `pipe` source fetches raw PCM over HTTP from a server that cuts the
connection, and refuses new ones for a random time. *microphone*: PortAudio records
a virtual sound card, which is unplugged (its module unloaded) and plugged in again.
Every sample encodes its number, so that the true number of missing samples follows
from the samples around each gap.

    .venv/bin/python bench/reliability/losses.py --losses 100
"""

import argparse
import json
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from threading import Event as Flag
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import GAP_DEVICE_LOST, Anchor, Block, Gap
from neurovocal.engine.runtime.workers.source_reader import SourceReader

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "helpers"))
from audio_devices.virtual_audio import VirtualMicrophone
from network.broadcast import FETCH, BroadcastServer

RUNNING_S = (0.6, 1.5)
OUTAGE_S = (0.1, 3.0)
PATIENCE_S = 60.0
MICROPHONE_RATE = 32_000
MICROPHONE_SPAN = 1 << 16  # after so many samples 16 bits come again
MICROPHONE_BLOCK = MICROPHONE_RATE // 10


def main() -> int:
    """Interrupt and restore; 0 if every gap is within a block of its true length."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--losses", type=int, default=100, help="of each kind")
    parser.add_argument(
        "--kinds", default="stream,microphone", help="also: ffmpeg, the stream by it"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--listen", metavar="PLUGIN", help=argparse.SUPPRESS)
    parser.add_argument("--options", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.listen:
        return listen(arguments.listen, arguments.options)
    table = Table(
        *("source", "losses", "recovered", "within a block"),
        *("block, ms", "error, ms: median", "95 %", "largest", "outage, s"),
        box=None,
    )
    good = True
    for kind in arguments.kinds.split(","):
        make = KINDS[kind]
        rng = random.Random(arguments.seed)
        with make() as lost:
            errors, lengths = measure_outages(lost, kind, arguments.losses, rng)
        rate, block = lost.sample_rate, lost.block_length
        off = np.abs(errors) * 1000 / rate
        within = int((np.abs(errors) <= block).sum())
        good &= within == arguments.losses
        table.add_row(
            kind,
            str(arguments.losses),
            str(len(errors)),
            str(within),
            f"{block * 1000 / rate:.0f}",
            *(f"{value:.2f}" for value in np.percentile(off, [50, 95, 100])),
            f"{min(lengths):.1f} to {max(lengths):.1f}",
        )
    Console(width=120).print(table)
    return 0 if good else 1


class InterruptedSource:
    """A source that can be interrupted, and a process that reads it."""

    sample_rate: int
    block_length: int
    process: subprocess.Popen[str]

    def interrupt(self) -> None:
        """Stop the delivery of samples."""

    def restore(self) -> None:
        """Allow the source to be opened again."""

    def missed(self, last: int, first: int, gap: int) -> int:
        """Return the true number of samples between two; `gap` is an estimate."""
        raise NotImplementedError

    def command(self, plugin: str, options: dict[str, Any]) -> list[str]:
        """Return the command of the process that reads the source."""
        more = ["--listen", plugin, "--options", json.dumps(options)]
        return [sys.executable, __file__, *more]


class InterruptedStream(InterruptedSource):
    """HTTP stream: the server cuts connections and refuses new ones for a while."""

    sample_rate = BroadcastServer.rate
    block_length = 4096

    def __enter__(self) -> "InterruptedStream":
        self.server = BroadcastServer()
        options = {
            "sample_rate": self.sample_rate,
            "sample_format": "s24le",
            "command": self.fetch(),
            "endless": True,
            "block_length": self.block_length,
        }
        self.process = subprocess.Popen(
            self.command("pipe", options), stdout=subprocess.PIPE, text=True
        )
        return self

    def fetch(self) -> list[str]:
        """Return the command that writes the stream to its standard output."""
        return [sys.executable, "-c", FETCH, self.server.url]

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.communicate()
        self.server.__exit__(*error)

    def interrupt(self) -> None:
        """Stop the delivery of samples."""
        self.server.refuses = True
        self.server.cut.set()

    def restore(self) -> None:
        """Allow the source to be opened again."""
        self.server.refuses = False

    def missed(self, last: int, first: int, gap: int) -> int:
        """Return the true number of samples between two; `gap` is an estimate."""
        return first - last - 1


class InterruptedFfmpeg(InterruptedStream):
    """The same stream, fetched by ffmpeg, which has buffers of its own."""

    def fetch(self) -> list[str]:
        """Return the command that writes the stream to its standard output."""
        form = f"-f s24le -ar {self.sample_rate} -ac 1"
        read = f"{form} -fflags nobuffer -i {self.server.url}"
        write = f"{form} -flush_packets 1 -"
        return f"ffmpeg -v error -nostdin {read} {write}".split()


class InterruptedMicrophone(InterruptedSource, VirtualMicrophone):
    """PulseAudio sound card; its module is unloaded and loaded."""

    sample_rate = MICROPHONE_RATE
    block_length = MICROPHONE_BLOCK

    def __init__(self) -> None:
        super().__init__(MICROPHONE_RATE)

    def __enter__(self) -> "InterruptedMicrophone":
        super().__enter__()
        options = {
            "device": "pipemic",
            "sample_rate": self.sample_rate,
            "stall_timeout_s": 2.0,
        }
        command = self.command("microphone", options)
        self.process = self.start(command, stdout=subprocess.PIPE, text=True)
        return self

    def _feed(self) -> None:
        """Write the ramp in real time, also while it cannot be read."""
        began, sent = time.monotonic(), 0
        while not self._stop.wait(0.01):
            at = int((time.monotonic() - began) * self.sample_rate)
            numbers = np.arange(sent, at).astype(np.uint16)
            self._write(numbers.tobytes(), insist=False)
            sent = at

    def interrupt(self) -> None:
        """Stop the delivery of samples."""
        self.unplug()

    def restore(self) -> None:
        """Allow the source to be opened again."""
        self.plug_in()

    def missed(self, last: int, first: int, gap: int) -> int:
        """Return the true number of samples between two; `gap` is an estimate."""
        exact = (first - last - 1) % MICROPHONE_SPAN
        turns = round((gap - exact) / MICROPHONE_SPAN)
        return exact + turns * MICROPHONE_SPAN


KINDS = {
    "stream": InterruptedStream,
    "ffmpeg": InterruptedFfmpeg,
    "microphone": InterruptedMicrophone,
}


def measure_outages(
    lost: InterruptedSource, kind: str, losses: int, rng: random.Random
) -> tuple[list[int], list[float]]:
    """Return errors in samples and true lengths in s of `losses` outages."""
    back, gaps = threading.Semaphore(0), []

    def read_lines() -> None:
        assert lost.process.stdout is not None
        for line in lost.process.stdout:
            gaps.append(json.loads(line))
            back.release()

    threading.Thread(target=read_lines, daemon=True).start()
    if not back.acquire(timeout=PATIENCE_S):
        raise SystemExit(f"{kind}: nothing was received within {PATIENCE_S:.0f} s")
    gaps.clear()
    errors, lengths = [], []
    with Progress(transient=True, console=Console(stderr=True)) as progress:
        for _ in progress.track(range(losses), description=kind):
            time.sleep(rng.uniform(*RUNNING_S))
            lost.interrupt()
            time.sleep(rng.uniform(*OUTAGE_S))
            lost.restore()
            if not back.acquire(timeout=PATIENCE_S):
                break  # it has not come back: the table says so
            gap = gaps[-1]
            missed = lost.missed(gap["last"], gap["first"], gap["length"])
            errors.append(gap["length"] - missed)
            lengths.append(missed / lost.sample_rate)
    return errors, lengths


def listen(plugin: str, options: dict[str, Any]) -> int:
    """Read the source as the engine does; print a line at the start and per return."""
    if plugin == "pipe":
        from neurovocal.plugins.sources.pipe import source as module

        bits = 23
    else:
        from neurovocal.plugins.sources import microphone as module

        bits = 15
    clock = SystemClock()
    context = BuildContext(clock, "bench")
    source = module.plugin.build(module.plugin.options(**options), context)
    reader = SourceReader(
        "bench", source, clock, "restart", Flag(), lambda health: None
    )
    reader.open()
    last, stop, lost, anchored = 0, 0, False, False
    while True:
        item = reader.read(0.5)
        if isinstance(item, Gap):
            # One more may follow an outage's: what counts is where sound goes on.
            lost, anchored = lost or item.reason == GAP_DEVICE_LOST, False
        elif isinstance(item, Anchor):
            anchored = True
        elif isinstance(item, Block):
            values = np.round(item.samples[:, 0] * float(1 << bits)).astype(int)
            if not stop:
                print("{}", flush=True)
            elif lost:
                assert anchored, "a return without an anchor"
                line = {"last": last, "first": int(values[0])}
                print(json.dumps({**line, "length": item.start - stop}), flush=True)
            last, stop, lost = int(values[-1]), item.stop, False


if __name__ == "__main__":
    sys.exit(main())

"""Latency of events at a subscriber, beside that of bare ZeroMQ messages.

An engine process plays bursts with known onsets in real time, in blocks of 2 to 20 ms;
this process subscribes. For each label and onset two times are measured: from the
hand-over of the block that made it known, and from the first sample of the sound. In
turn with it, a process that does nothing else publishes messages of the same size at
the same pace. The last runs have eight lanes, of which one is measured, beside a
subscriber that takes everything and reads nothing. Run it on an idle machine:

    .venv/bin/python bench/speed/subscriber_latency.py --seconds 60
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
import zmq
from numpy.typing import NDArray

from neurovocal.engine.contracts.types import instant_of
from neurovocal.engine.wire.codec import decode, to_event

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).with_name("paced_source.py")
COMMAND = [sys.executable, "-c", "from neurovocal.engine.cli import main; main()"]
RATE = 32_000
BLOCKS_MS = (2, 4, 5, 10, 20)
LEAD_S = 2.0  # the detector learns what silence is
BURST_S, PAUSE_S = (0.03, 0.06), (0.05, 0.09)
MATCH_S = 0.05
KINDS = ("onset", "label")
PARTS = ("queue_ms", "compute_ms", "publish_ms")
SHARES = (50, 95, 99, 100)
EDGES_MS = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 50)

Milliseconds = NDArray[np.float64]

# Publishes messages of the given sizes, as far apart as those of the engine.
BARE = """
import sys, time, zmq
endpoint, count, pause_s, *sizes = sys.argv[1:]
socket = zmq.Context().socket(zmq.PUB)
socket.bind(endpoint)
time.sleep(1.0)
filler = [b"x" * int(size) for size in sizes]
began = time.monotonic()
for number in range(int(count)):
    left = began + number * float(pause_s) - time.monotonic()
    if left > 0:
        time.sleep(left)
    sent = b"%020d" % time.monotonic_ns()
    socket.send_multipart([filler[0], sent + filler[1][20:], filler[2]])
socket.close(2000)
"""


class Run(NamedTuple):
    """Latencies in ms: by kind of event, and of bare messages of the same size."""

    handover: dict[str, Milliseconds]
    sound: dict[str, Milliseconds]
    bare: Milliseconds
    parts: dict[str, Milliseconds]  # of labels, from the ledger


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="of each run")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--blocks-ms", type=int, nargs="*", default=BLOCKS_MS)
    parser.add_argument("--lanes", type=int, default=8, help="of the crowded runs")
    parser.add_argument("--late", action="store_true", help="without `early: true`")
    parser.add_argument("--picture", type=Path, help="SVG of the histograms")
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    runs: dict[str, list[Run]] = {}
    for number in range(options.rounds):
        for block_ms in options.blocks_ms:
            run = measure(options, block_ms, 1, seed=number)
            runs.setdefault(f"{block_ms} ms", []).append(run)
        if options.lanes > 1:
            run = measure(options, 4, options.lanes, seed=number)
            name = f"4 ms, {options.lanes} lanes, a reader that stands still"
            runs.setdefault(name, []).append(run)
    found = {name: joined(several) for name, several in runs.items()}
    print_tables(found)
    if options.picture:
        draw(found, options.picture)
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")
    return 0


def joined(runs: Sequence[Run]) -> Run:
    """Return the latencies of several runs together."""
    handover, sound, parts = (
        {
            key: np.concatenate([getattr(run, field)[key] for run in runs])
            for key in getattr(runs[0], field)
        }
        for field in ("handover", "sound", "parts")
    )
    return Run(handover, sound, np.concatenate([run.bare for run in runs]), parts)


# ---- the sound -----------------------------------------------------------------------


def bursts(seconds: float, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return bursts of noise over faint noise, float32[n], and their first samples."""
    rng = np.random.default_rng(seed)
    samples = rng.normal(0, 1e-3, round(seconds * RATE)).astype(np.float32)
    starts: list[int] = []
    position = round(LEAD_S * RATE)
    while True:
        length = round(rng.uniform(*BURST_S) * RATE)
        if position + length > len(samples) - RATE // 2:
            return samples, np.array(starts, np.int64)
        burst = rng.normal(0, 0.1, length)
        burst[0] = 0.2  # its first sample is heard
        samples[position : position + length] += burst.astype(np.float32)
        starts.append(position)
        position += length + round(rng.uniform(*PAUSE_S) * RATE)


# ---- one run -------------------------------------------------------------------------


def measure(options: argparse.Namespace, block_ms: int, n_lanes: int, seed: int) -> Run:
    """Run an engine, then bare messages of the size and pace of its events."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples, starts = bursts(options.seconds, seed)
        np.save(folder / "sound.npy", samples)
        endpoint = f"tcp://127.0.0.1:{free_port()}"
        config = configuration(folder, endpoint, block_ms, n_lanes, options.late)
        path = folder / "run.yaml"
        path.write_text(yaml.safe_dump(config))
        crowded = n_lanes > 1
        received = events_of(path, endpoint, options.seconds, crowded)
        times = np.load(folder / "times0.npy")
        handover, sound = latencies(received, times, block_ms * RATE // 1000, starts)
        sizes = [len(part) for part in received[len(received) // 2][1]]
        pause_s = options.seconds / max(len(received), 1)
        bare = bare_latencies(sizes, pause_s, min(len(received), 1000), crowded)
    return Run(handover, sound, bare, parts_of(received))


def configuration(
    folder: Path, endpoint: str, block_ms: int, n_lanes: int, late: bool
) -> dict[str, Any]:
    """Return the configuration of an engine that labels the sound, frame by frame."""

    def lane(number: int) -> dict[str, Any]:
        source = {
            "sound": str(folder / "sound.npy"),
            "times": str(folder / f"times{number}.npy"),
            "sample_rate": RATE,
            "block_length": block_ms * RATE // 1000,
        }
        return {
            "name": f"lane{number}",
            "source": {"plugin": f"{SOURCE}:plugin", "options": source},
            "bundle": "bengalese-finch",
            "detector": {"plugin": "energy", "options": {"early": not late}},
            "models": [{"plugin": "classifier"}],
        }

    sink = {
        "plugin": "zmq",
        "options": {"endpoint": endpoint, "wait_for_subscribers": 1},
    }
    lanes = [lane(number) for number in range(n_lanes)]
    shared = {"version": 1, "station": "latency", "tile": 1}
    return {**shared, "lanes": lanes, "sinks": [sink]}


def free_port() -> int:
    """Return a port that was free just now."""
    context = zmq.Context()
    socket = context.socket(zmq.PUB)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    socket.close(0)
    context.term()
    return port


@contextmanager
def subscribed(
    endpoint: str, topics: Sequence[str], crowded: bool
) -> Iterator["zmq.Socket[bytes]"]:
    """Yield a socket that is subscribed; `crowded`: beside one that is never read."""
    context = zmq.Context()
    if crowded:
        idle = context.socket(zmq.SUB)
        idle.set_hwm(10)
        idle.subscribe("")
        idle.connect(endpoint)
    socket = context.socket(zmq.SUB)
    for topic in topics:
        socket.subscribe(topic)
    socket.connect(endpoint)
    try:
        yield socket
    finally:
        context.destroy(linger=0)


def events_of(
    config: Path, endpoint: str, seconds: float, crowded: bool
) -> list[tuple[int, list[bytes]]]:
    """Run an engine to its end; return the events of lane 0, with arrival times."""
    topics = [f"nv1/{kind}/lane0" for kind in KINDS]
    received: list[tuple[int, list[bytes]]] = []
    with subscribed(endpoint, topics, crowded) as socket:
        process = subprocess.Popen(
            [*COMMAND, "run", str(config), "--json"],
            stdout=subprocess.DEVNULL,
            env={k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"},
        )
        try:
            while process.poll() is None:
                if not socket.poll(500):
                    continue
                parts = socket.recv_multipart()
                received.append((time.monotonic_ns(), parts))
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)
    if not received:
        raise SystemExit(f"no event of {seconds:g} s came from the engine")
    return received


def latencies(
    received: Sequence[tuple[int, Sequence[bytes]]],
    times: NDArray[np.int64],
    block_length: int,
    starts: NDArray[np.int64],
) -> tuple[dict[str, Milliseconds], dict[str, Milliseconds]]:
    """Return latencies in ms from hand-over, and of onsets from the sound, by kind.

    Parameters
    ----------
    received : sequence of (int, parts)
        Monotonic time in ns and message.
    times : int64[1 + n_blocks]
        Start of the sound, and hand-over of each block, in ns.
    block_length : int
        Samples per block.
    starts : int64[n_bursts]
        First samples of the bursts.
    """
    handover: dict[str, list[float]] = {kind: [] for kind in KINDS}
    sound: dict[str, list[float]] = {kind: [] for kind in KINDS}
    told: set[int] = set()
    for arrived_ns, parts in received:
        header, values = decode(parts)
        event = to_event(header, values)
        latency = header.latency
        if latency is None or not isinstance(latency.wait_ms, float):
            continue
        at = instant_of(event) + latency.wait_ms * RATE / 1000
        block = round(at / block_length + 0.499) - 1
        if not 0 <= block < len(times) - 1 or at < LEAD_S * RATE:
            continue
        handover[header.kind].append((arrived_ns - times[1 + block]) / 1e6)
        onset = getattr(event, "onset", getattr(event, "sample", 0))
        nearest = int(np.argmin(np.abs(starts - onset)))
        is_near = abs(starts[nearest] - onset) <= MATCH_S * RATE
        if header.kind == "onset" and is_near and nearest not in told:
            told.add(nearest)
            heard_ns = times[0] + starts[nearest] * 1e9 / RATE
            sound[header.kind].append((arrived_ns - heard_ns) / 1e6)
    return (
        {kind: np.array(found) for kind, found in handover.items()},
        {kind: np.array(found) for kind, found in sound.items()},
    )


def parts_of(
    received: Sequence[tuple[int, Sequence[bytes]]],
) -> dict[str, Milliseconds]:
    """Return the parts of the ledgers of labels in ms, by name."""
    found: dict[str, list[float]] = {name: [] for name in PARTS}
    for _, message in received:
        header, _ = decode(message)
        if header.kind == "label":
            for name, values in found.items():
                value = getattr(header.latency, name, None)
                values.append(value if isinstance(value, float | int) else 0.0)
    return {name: np.array(values) for name, values in found.items()}


def bare_latencies(
    sizes: Sequence[int], pause_s: float, count: int, crowded: bool
) -> Milliseconds:
    """Return the latencies in ms of messages that a process of its own publishes."""
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    texts = [endpoint, str(count), str(pause_s), *map(str, sizes)]
    found: list[float] = []
    with subscribed(endpoint, ["x"], crowded) as socket:
        process = subprocess.Popen([sys.executable, "-c", BARE, *texts])
        while process.poll() is None or socket.poll(0):
            if not socket.poll(500):
                continue
            parts = socket.recv_multipart()
            found.append((time.monotonic_ns() - int(parts[1][:20])) / 1e6)
    return np.array(found)


# ---- results -------------------------------------------------------------------------


def print_tables(found: dict[str, Run]) -> None:
    """Print the percentiles beside those of bare messages, and the histograms."""
    print("From the hand-over of a block to the event at the subscriber, ms:\n")
    print("| block | event | n | p50 / p95 / p99 / most | bare | p50, p99 above it |")
    print("| --- | --- | --: | --: | --: | --: |")
    for name, run in found.items():
        bare = np.percentile(run.bare, SHARES)
        for kind in KINDS:
            values = run.handover[kind]
            if not len(values):
                continue
            own = np.percentile(values, SHARES)
            above = f"{own[0] - bare[0]:.2f}, {own[2] - bare[2]:.2f}"
            cells = [name, kind, str(len(values)), texts(own), texts(bare), above]
            print(f"| {' | '.join(cells)} |")
    print("\nParts of it in the ledgers of labels, ms: p50 / p95 / p99 / most\n")
    print(f"| block | {' | '.join(PARTS)} |")
    print(f"| --- |{' --: |' * len(PARTS)}")
    for name, run in found.items():
        cells = [texts(np.percentile(run.parts[part], SHARES)) for part in PARTS]
        print(f"| {name} | {' | '.join(cells)} |")
    print("\nFrom the first sample of a sound to its onset at the subscriber, ms:\n")
    print("| block | n | mean | sigma | p50 / p95 / p99 / most |")
    print("| --- | --: | --: | --: | --: |")
    for name, run in found.items():
        values = run.sound["onset"]
        if len(values):
            moments = f"{len(values)} | {values.mean():.1f} | {values.std():.2f}"
            print(f"| {name} | {moments} | {texts(np.percentile(values, SHARES))} |")
    print("\nOnsets in each class of ms from the first sample of the sound, %:\n")
    classes = [f"< {edge}" for edge in EDGES_MS[1:]] + ["more"]
    print(f"| block | {' | '.join(classes)} |")
    print(f"| --- |{' --: |' * len(classes)}")
    for name, run in found.items():
        counts, _ = np.histogram(run.sound["onset"], [*EDGES_MS, np.inf])
        shares = 100 * counts / max(1, counts.sum())
        print(f"| {name} | {' | '.join(f'{share:.0f}' for share in shares)} |")


def texts(values: Sequence[float]) -> str:
    """Return numbers with two digits, separated by slashes."""
    return " / ".join(f"{value:.2f}" for value in values)


def draw(found: dict[str, Run], path: Path) -> None:
    """Write the histograms of onsets and labels as a picture."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, rows = pyplot.subplots(
        len(found), 2, figsize=(9, 1.4 * len(found)), sharex="col", squeeze=False
    )
    for (name, run), (left, right) in zip(found.items(), rows, strict=True):
        left.hist(run.sound["onset"], bins=np.linspace(0, 40, 81), color="#2b6cb0")
        label = run.handover["label"]
        right.hist(label, bins=np.linspace(0, 5, 101), color="#2b6cb0", label="label")
        share = np.full(len(run.bare), len(label) / max(1, len(run.bare)))
        right.hist(
            run.bare,
            bins=np.linspace(0, 5, 101),
            weights=share,
            histtype="step",
            color="#c05621",
            label="bare message",
        )
        left.set_ylabel(name.partition(", a reader")[0], rotation=0, ha="right")
    rows[0][0].set_title("onset, ms after the sound began")
    rows[0][1].set_title("label, ms after its block was handed over")
    rows[0][1].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())

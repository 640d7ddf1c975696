"""CPU time of a lane beside a bare loop over the same networks: ``make bench``.

Lane, bare loop and peers (silero-vad, webrtcvad, librosa, scipy) run in turn on the
same audio in one thread, several rounds; printed is the fastest round of each stretch
of 0.4 s, in microseconds of CPU per frame, and ratios. Compare figures of one run only.
The latency of a run in real time follows.
"""

import argparse
import json
import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")

from dataclasses import asdict

import soxr
from bare_loop import Cost, Pair
from rich.console import Console
from rich.table import Table
from speed_peers import Peer, peers

from neurovocal.engine.cli.commands.bench import latency_table, live, load, repeated
from neurovocal.engine.config.plan import Plan
from neurovocal.engine.contracts.types import Float32
from neurovocal.engine.support.compiled import load_kernels

TILES = (1, 8, 25, 250)


def cost_table(costs: list[Cost], frame_ms: float) -> Table:
    """Return the cost of lane and bare loop as a table for people."""
    table = Table(title="microseconds of CPU per frame", title_justify="left")
    for column in ("tile", "stages", "lane", "bare", "ratio", "x real time"):
        table.add_column(column, justify="left" if column == "stages" else "right")
    for cost in costs:
        table.add_row(
            f"{cost.tile}",
            cost.stages,
            f"{cost.lane_us:.1f}",
            f"{cost.bare_us:.2f}",
            f"{cost.ratio:.2f}",
            f"{1000 * frame_ms / cost.lane_us:.0f}",
        )
    return table


def parts_table(costs: list[Cost]) -> Table:
    """Return the cost of the lane's parts as a table for people."""
    title = "parts of the lane, microseconds of CPU per frame"
    table = Table("tile", title=title, title_justify="left")
    whole = {c.tile: c for c in sorted(costs, key=lambda cost: len(cost.parts_us))}
    names = list(next(iter(whole.values())).parts_us)
    for name in names:
        table.add_column(name, justify="right")
    for cost in whole.values():
        table.add_row(f"{cost.tile}", *(f"{cost.parts_us[n]:.2f}" for n in names))
    return table


def peer_table(found: list[Peer], costs: list[Cost], frame_ms: float) -> Table:
    """Return the cost of the peers beside the like of the lane, for people."""
    title = "peers, same audio, same run: microseconds of CPU per frame"
    table = Table(title=title, title_justify="left")
    for column in ("peer", "block", "peer", "lane, tile", "lane", "peer / lane"):
        table.add_column(column, justify="left" if not table.columns else "right")
    bare = {cost.tile: cost for cost in costs if cost.stages == "detector"}
    for peer in found:
        tile = min(bare, key=lambda t: abs(t * frame_ms - peer.block_ms))
        cost = bare[tile]
        ours = cost.lane_us if peer.beside == "all" else cost.parts_us[peer.beside]
        table.add_row(
            peer.name,
            f"{peer.block_ms:.0f} ms",
            f"{peer.us:.2f}",
            f"{'detector' if peer.beside == 'all' else peer.beside}, {tile}",
            f"{ours:.2f}",
            f"{peer.us / ours:.2f}",
        )
    return table


def measure(
    plan: Plan, audio: Float32, options: argparse.Namespace
) -> tuple[list[Cost], list[Peer]]:
    """Run all pairs and peers in turn, `options.rounds` times."""
    front_end = plan.lanes[0].bundle.manifest.front_end
    rate = front_end.sample_rate
    pairs = [
        Pair(plan, tile, n_models)
        for tile in options.tiles
        for n_models in options.models
    ]
    found = [] if options.no_peers else peers(audio[:, 0], rate)
    for _ in range(options.rounds):
        for pair in pairs:
            pair.run(audio)
        for peer in found:
            peer.run(front_end.hop_length / rate)
    return [pair.cost() for pair in pairs], found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="demo")
    parser.add_argument("--recording")
    parser.add_argument("--set", action="append", default=[], metavar="K=V")
    parser.add_argument("--tiles", type=int, nargs="+", default=TILES)
    parser.add_argument(
        "--models", type=int, nargs="+", default=[0, 1, 2], help="numbers of models"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="audio per round")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--live-seconds", type=float, default=10.0)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--numpy", action="store_true", help="without compiled kernels")
    parser.add_argument("--json", action="store_true", help="JSON for programs")
    options = parser.parse_args()
    plan, samples, rate = load(options.config, options.recording, options.set)
    bundle = plan.lanes[0].bundle
    if bundle is None:
        parser.error(f"'{options.config}' names no bundle, whose networks it needs")
    front_end = bundle.manifest.front_end
    if rate != front_end.sample_rate:
        samples = soxr.resample(samples, rate, front_end.sample_rate)
    audio = repeated(samples, front_end.sample_rate, options.seconds)
    frame_ms = front_end.hop_length * 1000 / front_end.sample_rate
    kernels = None if options.numpy else load_kernels()
    costs, found = measure(plan, audio, options)
    if options.json:
        print(json.dumps([{**asdict(cost), "ratio": cost.ratio} for cost in costs]))
        return
    console = Console(width=100)
    load_average = os.getloadavg()[0]
    console.print(
        f"The fastest of {options.rounds} rounds of {options.seconds:g} s; frames of "
        f"{frame_ms:g} ms; load {load_average:.1f} on {os.cpu_count()} cores.\n"
        f"Kernels: {kernels or 'NumPy'}. 'detector' is detector + spectrogram."
    )
    console.print(cost_table(costs, frame_ms))
    console.print(parts_table(costs))
    if found and 0 in options.models:
        console.print(peer_table(found, costs, frame_ms))
    for tile in (1, 8) if options.live_seconds else ():
        console.print(f"\ntile {tile}:")
        settings = [*options.set, f"tile={tile}"]
        ledger = live(options.config, samples, rate, options.live_seconds, settings)
        console.print(latency_table(ledger))


if __name__ == "__main__":
    main()

"""Recall and false alarms of the privacy gate: ``make bench-privacy``.

Spoken digits (0.4 s each: about the shortest speech there is) are mixed into five
seconds of near silence, or of a forest at two signal-to-noise ratios, and processed by
the gate as in a run, with its look-ahead and holds. Recordings of animals and of other
sounds show the false alarms. Every other speaker, and half of the recordings, is for
choosing the threshold (``--part dev``); the other half was measured once, with the
default (``--part test``).
"""

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import csv
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import numpy as np
import soundfile
import soxr
from rich.console import Console
from rich.progress import track
from rich.table import Table

from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import Block, StreamInfo, Withheld
from neurovocal.engine.runtime.workers.privacy import AudioGate

HERE = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("NEUROVOCAL_DATA", HERE.parent / "shared" / "data"))
SEED = 7
SCENE_S = 5.0
RATE = 22000
SNRS_DB = (10, 0)
OTHERS = (
    "finch_gy6or6",
    "finch_bird0",
    "zebra_finch_G402",
    "meerkat",
    "field_spinetail",
    "soundscape_background",
)


class Meter:
    """A gate with a threshold, and the time of its network."""

    def __init__(self, threshold: float, hold_s: float) -> None:
        self.plugin = Registry().get("gate", "silero")
        self.options = self.plugin.options(threshold=threshold)
        self.hold_s = hold_s
        self.gates: dict[int, AudioGate] = {}
        self.spent_s = self.heard_s = 0.0

    def withheld(self, samples: np.ndarray, rate: int) -> np.ndarray:
        """Return which samples are withheld, bool[n_samples]."""
        if rate not in self.gates:
            info = StreamInfo("bench", rate)
            context = BuildContext(SystemClock(), "bench", info=info)
            gate = self.plugin.build(self.options, context)
            self.gates[rate] = AudioGate(gate, rate, self.hold_s, self.hold_s)
        gate = self.gates[rate]
        kept = np.zeros(len(samples), bool)
        column = np.ascontiguousarray(samples, np.float32)[:, None]
        began = time.process_time()
        blocks = range(0, len(column), 1024)
        out = [o for i in blocks for o in gate.push(Block(i, column[i : i + 1024]))]
        out += gate.flush()
        self.spent_s += time.process_time() - began
        self.heard_s += len(samples) / rate
        for item in out:
            if isinstance(item, Withheld):
                kept[item.start : item.stop] = True
        return kept


def is_dev(name: str) -> bool:
    """Return whether a name belongs to the half for choices, by a checksum."""
    return crc32(name.encode()) % 2 == 0


def rows(folder: str) -> list[dict[str, str]]:
    """Read the rows of a data set's files.csv."""
    with (DATA / folder / "files.csv").open() as file:
        return list(csv.DictReader(file))


def read(folder: str, row: dict[str, str]) -> tuple[np.ndarray, int]:
    """Read samples and rate."""
    return soundfile.read(DATA / folder / row["file"], dtype="float32")


def digits(dev: bool, count: int) -> list[np.ndarray]:
    """Read the digits of half of the speakers, at `RATE`."""
    speakers = sorted({r["speaker"] for r in rows("spoken_digits")})
    mine = speakers[::2] if dev else speakers[1::2]
    of = [r for r in rows("spoken_digits") if r["speaker"] in mine]
    rng = np.random.default_rng(SEED)
    chosen = rng.choice(len(of), min(count, len(of)), replace=False)
    found = []
    for index in chosen:
        samples, rate = read("spoken_digits", of[index])
        found.append(soxr.resample(samples, rate, RATE))
    return found


def scenes(
    spoken: list[np.ndarray], dev: bool, snr_db: float | None
) -> Iterator[tuple[np.ndarray, slice]]:
    """Yield five seconds with a digit in each, and its position."""
    rng = np.random.default_rng(SEED)
    forest = [read("soundscape_background", r) for r in rows("soundscape_background")]
    beds = [a for i, (a, _) in enumerate(forest) if i % 2 == (0 if dev else 1)]
    length = round(SCENE_S * RATE)
    for word in spoken:
        word = word[:length]
        start = int(rng.integers(0, length - len(word) + 1))
        if snr_db is None:
            bed = rng.normal(0, 1e-4, length)
        else:
            whole = beds[int(rng.integers(len(beds)))]
            first = int(rng.integers(0, len(whole) - length + 1))
            bed = whole[first : first + length].astype(float)
            level = np.sqrt(np.mean(word**2) / max(np.mean(bed**2), 1e-12))
            bed *= level / 10 ** (snr_db / 20)
        where = slice(start, start + len(word))
        bed[where] += word
        yield (bed / max(1.0, np.abs(bed).max())).astype(np.float32), where


def speech(meter: Meter, dev: bool, count: int) -> Iterator[tuple[str, ...]]:
    """Return the shares of withheld samples and of completely withheld digits."""
    spoken = digits(dev, count)
    for snr_db in (None, *SNRS_DB):
        shares = []
        for samples, where in track(
            list(scenes(spoken, dev, snr_db)), "speech", transient=True
        ):
            shares.append(meter.withheld(samples, RATE)[where].mean())
        name = "in silence" if snr_db is None else f"in a forest, {snr_db} dB"
        whole = np.mean(np.array(shares) == 1)
        yield (
            f"spoken digits {name}",
            f"{len(shares)}",
            f"{100 * np.mean(shares):.1f} %",
            f"{100 * whole:.1f} %",
        )


def others(meter: Meter, dev: bool) -> Iterator[tuple[str, ...]]:
    """Return the withheld seconds of recordings without speech."""
    seconds: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    work = [(f, r, f) for f in OTHERS for r in rows(f)]
    work += [("env_sounds", r, f"env: {r['label']}") for r in rows("env_sounds")]
    for folder, row, name in track(work, "other sounds", transient=True):
        if is_dev(row["file"]) != dev:
            continue
        samples, rate = read(folder, row)
        if rate < 8000:
            continue
        kept = meter.withheld(samples, rate)
        seconds[name][0] += 1
        seconds[name][1] += len(samples) / rate
        seconds[name][2] += kept.sum() / rate
    for name, (count, heard, kept) in seconds.items():
        yield name, f"{count:.0f}", f"{100 * kept / heard:.1f} % of {heard:.0f} s", ""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=["dev", "test"], default="test")
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.3])
    parser.add_argument("--digits", type=int, default=100)
    parser.add_argument("--hold", type=float, default=2.0)
    options = parser.parse_args()
    console = Console(width=100)
    dev = options.part == "dev"
    for threshold in options.thresholds:
        meter = Meter(threshold, options.hold)
        table = Table(title=f"{options.part}, threshold {threshold}, seed {SEED}")
        for column in ("sound", "recordings", "withheld", "withheld whole"):
            table.add_column(column)
        for row in (*speech(meter, dev, options.digits), *others(meter, dev)):
            table.add_row(*row)
        console.print(table)
        console.print(
            f"the gate's cost: {100 * meter.spent_s / meter.heard_s:.2f} % of a core "
            f"per stream ({meter.heard_s:.0f} s of audio)"
        )


if __name__ == "__main__":
    main()

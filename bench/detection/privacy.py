"""Recall and false alarms of the privacy gate: ``make bench-privacy``.

Spoken digits (0.4 s each: about the shortest speech there is) are mixed into five
seconds of near silence, forest, rain, sea or a helicopter, at three signal-to-noise
ratios. All scenes of a condition are one stream, as in the field, and processed by
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
from neurovocal.engine.contracts.types import Block, Gap, StreamInfo
from neurovocal.engine.runtime.workers.privacy import AudioGate

HERE = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("NEUROVOCAL_DATA", HERE.parent / "shared" / "data"))
SEED = 7
SCENE_S = 5.0
RATE = 22000
SNRS_DB = (10, 5, 0)
BEDS = ("forest", "rain", "sea_waves", "helicopter")
QUIET_DB = -50  # of the digits and of what is around them, also in 24 bits
# Period and length of gaps in seconds; 0: one sample.
GAPS_S = ((0.005, 0.0), (0.1, 0.0), (0.1, 0.01), (0.3, 0.1), (1.0, 0.3))
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

    def withheld(
        self, samples: np.ndarray, rate: int, gaps_s: tuple[float, float] | None = None
    ) -> np.ndarray:
        """Return which samples are withheld, bool[n_samples].

        Parameters
        ----------
        samples : float32[n_samples]
        rate : int
        gaps_s : tuple of float, optional
            Period and length of gaps; their samples count as withheld.
        """
        if rate not in self.gates:
            info = StreamInfo("bench", rate)
            context = BuildContext(SystemClock(), "bench", info=info)
            gate = self.plugin.build(self.options, context)
            self.gates[rate] = AudioGate(gate, rate, self.hold_s, self.hold_s)
        gate = self.gates[rate]
        column = np.ascontiguousarray(samples, np.float32)[:, None]
        began = time.process_time()
        out = [o for item in _items(column, rate, gaps_s) for o in gate.push(item)]
        out += gate.flush()
        self.spent_s += time.process_time() - began
        self.heard_s += len(samples) / rate
        left = np.zeros(len(samples), bool)
        for item in out:
            if isinstance(item, Block):
                left[item.start : item.stop] = True
        return ~left


def _items(
    column: np.ndarray, rate: int, gaps_s: tuple[float, float] | None
) -> Iterator[Block | Gap]:
    """Yield blocks, with gaps between them."""
    period = 1024 if gaps_s is None else round(gaps_s[0] * rate)
    lost = 0 if gaps_s is None else max(1, round(gaps_s[1] * rate))
    for start in range(0, len(column), period):
        stop = min(start + period, len(column))
        heard = max(start + 1, stop - lost)
        yield Block(start, column[start:heard])
        if heard < stop:
            yield Gap(heard, stop, "lost")


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


def beds(name: str, dev: bool) -> list[np.ndarray]:
    """Read half of the recordings of a background, at `RATE`."""
    if name == "forest":
        found = [
            read("soundscape_background", r) for r in rows("soundscape_background")
        ]
    else:
        chosen = [r for r in rows("env_sounds") if r["label"] == name]
        found = [read("env_sounds", r) for r in chosen]
    half = found[0 if dev else 1 :: 2]
    return [soxr.resample(samples, rate, RATE) for samples, rate in half]


def stream(
    spoken: list[np.ndarray], around: list[np.ndarray] | None, snr_db: float
) -> tuple[np.ndarray, list[slice]]:
    """Return scenes of five seconds with a digit in each, and the digits' positions."""
    rng = np.random.default_rng(SEED)
    length = round(SCENE_S * RATE)
    scenes, places = [], []
    for number, word in enumerate(spoken):
        word = word[:length]
        start = int(rng.integers(0, length - len(word) + 1))
        if around is None:
            bed = rng.normal(0, 1e-4, length)
        else:
            whole = np.resize(around[int(rng.integers(len(around)))], 3 * length)
            first = int(rng.integers(0, length + 1))
            bed = whole[first : first + length].astype(float)
            level = np.sqrt(np.mean(word**2) / max(np.mean(bed**2), 1e-12))
            bed *= level / 10 ** (snr_db / 20)
        bed[start : start + len(word)] += word
        scenes.append(bed / max(1.0, np.abs(bed).max()))
        first = number * length + start
        places.append(slice(first, first + len(word)))
    return np.concatenate(scenes).astype(np.float32), places


def conditions(
    dev: bool, spoken: list[np.ndarray]
) -> Iterator[tuple[str, np.ndarray, list[slice], tuple[float, float] | None]]:
    """Yield name, samples, positions of the digits, and gaps of each condition."""
    silence, places = stream(spoken, None, 0)
    yield "in near silence", silence, places, None
    quiet = silence * np.float32(10 ** (QUIET_DB / 20))
    quiet = np.round(quiet * 2**23).astype(np.float32) / 2**23
    yield f"in near silence, {QUIET_DB} dB, 24 bits", quiet, places, None
    for name in BEDS:
        around = beds(name, dev)
        for snr_db in SNRS_DB:
            samples, places = stream(spoken, around, snr_db)
            yield f"{name}, {snr_db} dB", samples, places, None
        if name == "sea_waves":
            quiet = samples * np.float32(10 ** (QUIET_DB / 20))
            yield f"{name}, {snr_db} dB, all of it {QUIET_DB} dB", quiet, places, None
    silence, places = stream(spoken, None, 0)
    for gaps_s in GAPS_S:
        length = f"{1000 * gaps_s[1]:g} ms" if gaps_s[1] else "one sample"
        name = f"in near silence, {length} lost every {1000 * gaps_s[0]:g} ms"
        yield name, silence, places, gaps_s


def speech(meter: Meter, dev: bool, count: int) -> Iterator[tuple[str, ...]]:
    """Return the shares of withheld samples and of completely withheld digits."""
    spoken = digits(dev, count)
    for name, samples, places, gaps_s in conditions(dev, spoken):
        kept = meter.withheld(samples, RATE, gaps_s)
        shares = [kept[where].mean() for where in places]
        whole = np.mean(np.array(shares) == 1)
        yield (
            f"digits {name}",
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
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.35])
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

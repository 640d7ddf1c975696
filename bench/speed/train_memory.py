"""Peak memory of a training: the figure of docs/how-to/training.md.

One long recording of the synthetic bird is written with its annotation, and
`neurovocal train` runs on it in a process of its own, whose peak is printed.

    python bench/speed/train_memory.py [--hours 3] [--minutes 1]
"""

import argparse
import csv
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.errors import EndOfStream
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry

COMMAND = "from neurovocal.engine.cli import main; main()"


def main() -> int:
    """Write, train, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--hours", type=float, default=3.0)
    parser.add_argument("--minutes", type=float, default=1.0, help="of the training")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dataset = long_recording(Path(folder) / "data", options.hours * 3600)
        began = time.monotonic()
        code, peak = train(dataset, Path(folder) / "bundle", options.minutes)
        took = (time.monotonic() - began) / 60
    print(f"{options.hours:g} h: {peak / 1e9:.2f} GB at the peak, {took:.1f} min")
    return code


def long_recording(folder: Path, seconds: float) -> Path:
    """Write a dataset of one recording of the synthetic bird."""
    folder.mkdir(parents=True)
    plugin = Registry().get("source", "synthetic")
    options = plugin.options.model_validate({"duration_s": seconds, "seed": 0})
    source = plugin.build(options, BuildContext(clock=SystemClock(), run="bench"))
    source.open()
    rate = source.info.sample_rate
    with soundfile.SoundFile(folder / "long.flac", "w", rate, 1, "PCM_16") as file:
        try:
            while True:
                block = source.read(0.0)
                if block is not None:
                    file.write(np.clip(block.samples, -1, 1))
        except EndOfStream:
            source.close()
    with (folder / "annotations.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(("file", "onset_s", "offset_s", "label"))
        for truth in source.truth():
            times = (f"{at / rate:.6f}" for at in (truth.onset, truth.offset))
            table.writerow(("long.flac", *times, truth.unit))
    return folder


def train(dataset: Path, out: Path, minutes: float) -> tuple[int, int]:
    """Train; return exit code and peak in bytes (resident, mapped files included)."""
    words = ["train", str(dataset), "--out", str(out), "--minutes", str(minutes)]
    done = subprocess.run([sys.executable, "-c", COMMAND, *words], check=False)
    in_kb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return done.returncode, in_kb * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    sys.exit(main())

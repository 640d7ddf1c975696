"""Stability of generated song: level and variety per minute, memory, commands.

    python bench/song/free_run.py                 an hour, as fast as possible
    python bench/song/free_run.py --mode planned  after a plan of units
    python bench/song/free_run.py --commands 200  also send commands to a live run

The song is that of `rnn_rbm` in mode `free`, seed 7, drawn by the lane's own model.
Commands are sent to the control socket of an engine with blocks of 10 ms. `effect` is
the time from sending a command until the lane applies it, at most a tile before the
next drawn frame; `reply` the time until the reply arrives.
"""

import argparse
import resource
import sys
import time
from pathlib import Path
from threading import Thread

import numpy as np

from neurovocal.engine.cli.session import plan_of
from neurovocal.engine.client import Control
from neurovocal.engine.config.schema import locate_config
from neurovocal.engine.contracts.bundle import load_bundle
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import Audio, StreamInfo, Synthesis
from neurovocal.engine.runtime.runner import Runner
from neurovocal.engine.testing import CollectSink

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("level", "units/s", "variety", "cycle")
STEP = 16  # frames per call: what a model draws at a time


def rss_mib() -> float:
    """Return the largest resident memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def song(bundle, seed, minutes, temperature, mode):
    """Yield the frames of each minute, float32[n_frames, n_bins]."""
    front_end = bundle.manifest.front_end
    plugin = Registry().get("model", "rnn_rbm")
    options = plugin.options(synthesis=mode, seed=seed, temperature=temperature)
    info = StreamInfo("bench", front_end.sample_rate)
    context = BuildContext(clock=SystemClock(), run="bench", info=info, bundle=bundle)
    model = plugin.build(options, context)
    per_minute = 60 * front_end.sample_rate // front_end.hop_length
    position, frames = 0, []
    for _ in range(minutes):
        while sum(map(len, frames)) < per_minute:
            position += STEP * front_end.hop_length
            events = model.advance(position)
            frames += [e.values for e in events if isinstance(e, Synthesis)]
        whole = np.concatenate(frames)
        yield whole[:per_minute]
        frames = [whole[per_minute:]]


def measure_minute(frames, frames_per_s):
    """Measure level, units per second and repetition of a minute.

    Units are runs of at least 10 ms above the middle between the quiet and the loud
    tenth of the minute; the cycle index is the largest autocorrelation of the frames,
    mean removed, at lags from 0.25 to 5 s: 1 for a limit cycle.
    """
    level = frames.mean(axis=1)
    middle = np.quantile(level, [0.1, 0.9]).mean()
    edges = np.flatnonzero(np.diff(np.r_[0, level > middle, 0]))
    lengths = edges[1::2] - edges[::2]
    units = (lengths >= 0.01 * frames_per_s).sum()
    moving = frames - frames.mean(axis=0)
    n = len(moving)
    spectrum = np.fft.rfft(moving, 2 * n, axis=0)
    power = np.fft.irfft((np.abs(spectrum) ** 2).sum(axis=1))[:n]
    lags = slice(int(0.25 * frames_per_s), int(5 * frames_per_s))
    cycle = (power[lags] / power[0] * n / (n - np.arange(n)[lags])).max()
    return level.mean(), units / (n / frames_per_s), moving.std(), cycle


def measure_commands(n_commands):
    """Measure delays in ms of commands to a live run, and its sound's largest jump."""
    source = "source={plugin: synthetic, options: {duration_s: null, pace: realtime}}"
    endpoint = "control.options.endpoint=tcp://127.0.0.1:15557"
    sinks = "sinks=[{plugin: jsonl, options: {path: /dev/null}, events: [label]}]"
    runner = Runner(
        plan_of(locate_config("synthesis", [source, endpoint, sinks])),
        [sink := CollectSink({"synthesis", "audio", "control"})],
    )
    thread = Thread(target=runner.run)
    thread.start()
    while not runner.started:
        time.sleep(0.05)
    rng, sent, modes = (
        np.random.default_rng(0),
        [],
        ("free", "continue", "predict", "off"),
    )
    with Control("tcp://127.0.0.1:15557") as control:
        for index in range(n_commands):
            began = time.monotonic_ns()
            temperature = float(rng.uniform(0.5, 1.2))
            mode = modes[index // 2 % 4] if index % 2 else None
            options = {"synthesis": mode} if mode else {"temperature": temperature}
            control.set(**options)
            took = (time.monotonic_ns() - began) / 1e6
            sent.append((began, took))
            time.sleep(float(rng.uniform(0.05, 0.25)))
        control.stop()
    thread.join()
    obeyed = [m.emitted_ns for m in sink.messages if m.kind == "control"]
    effects = [(at - began) / 1e6 for at, (began, _) in zip(obeyed, sent, strict=False)]
    sounds = [e for e in sink.events(Audio) if len(e.samples)]
    first = min(e.start for e in sounds)
    mixed = np.zeros(max(e.stop for e in sounds) - first, np.float32)
    for event in sounds:
        mixed[event.start - first : event.stop - first] += event.samples[:, 0]
    return [took for _, took in sent], effects, mixed


def main():
    """Run the requested measurements and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", default="bengalese-finch")
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--mode", choices=["free", "planned"], default="free")
    parser.add_argument("--commands", type=int, default=0)
    options = parser.parse_args()
    bundle = load_bundle(options.bundle)
    front_end = bundle.manifest.front_end
    frames_per_s = front_end.sample_rate / front_end.hop_length
    rows, began = [], time.monotonic()
    print("minute  level  units/s  variety  cycle  RSS MiB")
    minutes = song(
        bundle, options.seed, options.minutes, options.temperature, options.mode
    )
    for minute, frames in enumerate(minutes, start=1):
        rows.append(measure_minute(frames, frames_per_s))
        level, units, variety, cycle = rows[-1]
        print(
            f"{minute:6} {level:6.3f} {units:8.2f} {variety:8.4f} {cycle:6.3f} "
            f"{rss_mib():8.0f}",
            flush=True,
        )
    spent = time.monotonic() - began
    table = np.array(rows).reshape(-1, len(NAMES))
    for name, column in zip(NAMES, table.T if rows else (), strict=False):
        low, mean, high = column.min(), column.mean(), column.max()
        print(f"{name}: {low:.3f} to {high:.3f}, mean {mean:.3f}")
    print(f"{options.minutes} minutes of song in {spent:.0f} s")
    if options.commands:
        replies, effects, mixed = measure_commands(options.commands)
        for name, values in (("reply", replies), ("effect", effects)):
            p50, p95, most = np.quantile(values, [0.5, 0.95, 1])
            times = f"p50 {p50:.1f}, p95 {p95:.1f}, max {most:.1f} ms"
            print(f"{name}, n {len(values)}: {times}")
        jumps = np.abs(np.diff(mixed))
        print(f"largest jump {jumps.max():.3f} at a peak of {np.abs(mixed).max():.3f}")


if __name__ == "__main__":
    sys.exit(main())

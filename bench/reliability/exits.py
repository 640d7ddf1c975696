"""Exits of closed loops with sound: ``make sound-exits``.

Each run listens to a virtual microphone, plays a sound at each onset and the
synthesized continuation of each segment, and is stopped by Ctrl-C after about a second,
at a time drawn anew. PulseAudio with null sinks is the sound card. Counted are exit
codes, crashes (killed by a signal) and hangs (no exit within 15 s). In one run in four
something else happens before: the sink is unplugged, the sound server is killed, or
Ctrl-C comes twice.

    .venv/bin/python bench/reliability/exits.py --runs 200
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import soundfile
from rich.console import Console
from rich.progress import track

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "helpers"))
from audio_devices.pulses import PulseAudio

ENGINE = "from neurovocal.engine.cli import main; main()"
LONGEST_EXIT_S = 15.0
LIFE_S = (0.2, 2.0)
FAULTS = ("unplug", "kill server", "twice")
FAULT_SHARE = 0.25
CONFIG = """
version: 1
source: {plugin: microphone, options: {channels: [1]}}
bundle: bengalese-finch
models:
  - {plugin: classifier}
  - {plugin: rnn_rbm, options: {synthesis: continue, sound: true}}
sinks:
  - {plugin: speaker}
  - plugin: trigger
    options: {pattern: ".", status: onset, refractory_ms: 50, play: {path: answer.wav}}
"""


def start_server() -> PulseAudio:
    """Start a sound server whose output is connected to its input."""
    pulse = PulseAudio({})
    server = f'type pulse server "{pulse.env["PULSE_SERVER"]}"'
    (pulse.home / ".asoundrc").write_text(
        f"pcm.!default {{ {server} }}\nctl.!default {{ {server} }}\n"
    )
    pulse.load("module-null-sink sink_name=loop rate=48000")
    set_source = ["pactl", "set-default-source", "loop.monitor"]
    subprocess.run(set_source, env=pulse.env, check=True)
    return pulse


def run_once(pulse: PulseAudio, folder: Path, fault: str, rng: random.Random) -> str:
    """Run and stop a closed loop; return its exit as text."""
    log = (folder / "log.txt").open("w+b")
    with (
        log,
        subprocess.Popen(
            [sys.executable, "-c", ENGINE, "run", "loop.yaml", "--plain"],
            cwd=folder,
            env=pulse.env,
            stdout=log,
            stderr=log,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        ) as process,
    ):
        limit = time.monotonic() + 60
        while b"publishing" not in _read(log) and _streams(pulse) < 2:
            if process.poll() is not None or time.monotonic() > limit:
                break
            time.sleep(0.05)
        time.sleep(rng.uniform(*LIFE_S))
        if fault == "unplug":
            modules = pulse.listed("modules").splitlines()
            number = next(m.split()[0] for m in modules if "null-sink" in m)
            unload = ["pactl", "unload-module", number]
            subprocess.run(unload, env=pulse.env, check=False)
        elif fault == "kill server":
            pulse.close()
        if fault in ("unplug", "kill server"):
            time.sleep(rng.uniform(0, 1))
        process.send_signal(signal.SIGINT)
        if fault == "twice":
            time.sleep(rng.uniform(0, 0.2))
            process.send_signal(signal.SIGINT)
        try:
            code = process.wait(LONGEST_EXIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return "hang"
        return f"signal {-code}" if code < 0 else f"exit {code}"


def _read(log: object) -> bytes:
    return os.pread(log.fileno(), 1 << 20, 0)  # type: ignore[attr-defined]


def _streams(pulse: PulseAudio) -> int:
    inputs = pulse.listed("sink-inputs").count("\n")
    return inputs + pulse.listed("source-outputs").count("\n")


def main() -> int:
    """Run as the arguments say; return 1 if a run crashed or hung."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng, exits = random.Random(arguments.seed), Counter[tuple[str, str]]()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="nv-exits-") as name:
        folder = Path(name)
        (folder / "loop.yaml").write_text(CONFIG)
        tone = 0.2 * np.sin(np.arange(4800) * 2 * np.pi * 3000 / 48_000)
        soundfile.write(folder / "answer.wav", tone, 48_000)
        pulse = start_server()
        try:
            for _ in track(range(arguments.runs), "running", console=console):
                fault = rng.choice(FAULTS) if rng.random() < FAULT_SHARE else "none"
                exits[fault, run_once(pulse, folder, fault, rng)] += 1
                if fault in ("unplug", "kill server"):
                    pulse.close()
                    pulse = start_server()
        finally:
            pulse.close()
            log = (folder / "log.txt").read_text(errors="replace")
            bad = _report(exits, log)
    return int(bad > 0)


def _report(exits: Counter[tuple[str, str]], log: str) -> int:
    """Print how the runs ended; return how many crashed or hung."""
    for (fault, how), count in sorted(exits.items()):
        print(f"{fault}: {how}: {count}")
    bad = sum(n for (_, how), n in exits.items() if not how.startswith("exit"))
    total = exits.total()
    print(f"{total} runs, {bad} crashed or hung; the last one's words:\n{log}")
    return bad


if __name__ == "__main__":
    sys.exit(main())

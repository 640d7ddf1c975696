"""Speed of `neurovocal scan` on this machine with one worker process and with more.

An archive of recordings of ten minutes (the shipped recording, repeated, as 16-bit WAV;
all names lead to one file, so that the disk is not what is measured) is scanned by the
command's own code, with one worker and with more in turn. The start of the cluster is
left out and told apart; CPU seconds are those of the tasks in the workers, and do not
grow when other programs make the workers wait.

    .venv/bin/python bench/scale/scan_speed.py --hours 4 --repeats 3
"""

import argparse
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from neurovocal.models.scan.cluster import open_cluster
from neurovocal.models.scan.command import make_job
from neurovocal.models.scan.labelling import Job
from neurovocal.models.scan.recordings import find_inputs
from neurovocal.models.scan.results import Results
from neurovocal.models.scan.scan import Counts, make_tasks, run_tasks

ROOT = Path(__file__).resolve().parents[2]
RECORDING = ROOT / "configs/recordings/bengalese-finch.flac"
MINUTES = 10
TASK_BYTES = 64 << 20


def make_archive(folder: Path, hours: float, song_share: float) -> None:
    """Write an archive of two stations; `song_share` of the time is song."""
    samples, rate = soundfile.read(RECORDING, dtype="float32")
    n_samples = MINUTES * 60 * rate
    song = np.resize(samples, round(n_samples * song_share))
    noise = np.random.default_rng(0).normal(0, 10 ** (-70 / 20), n_samples - len(song))
    first = folder / "first.wav"
    soundfile.write(first, np.concatenate([song, noise.astype(np.float32)]), rate)
    for number in range(round(hours * 60 / MINUTES)):
        station, day, ten = f"ST{number % 2}", number // 144 + 1, number % 144
        name = f"{station}_202105{day:02}_{ten // 6:02}{ten % 6}000Z.wav"
        path = folder / "archive" / station / name
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(first, path)


def scan(job: Job, archive: Path, out: Path, workers: int) -> dict[str, float]:
    """Scan the archive into a new folder; return times and counts by name."""
    inputs = find_inputs([str(archive)])
    results = Results(out, job.provenance)
    results.open()
    counts = Counts(len(inputs), sum(each.size or 0 for each in inputs))
    started = time.perf_counter()
    with open_cluster(job, workers, None) as cluster:
        begun = time.perf_counter()
        before = resource.getrusage(resource.RUSAGE_SELF)
        tasks = make_tasks(inputs, set(), TASK_BYTES, None)
        run_tasks(tasks, cluster, results, counts, lambda counts: None)
        seconds = time.perf_counter() - begun
        after = resource.getrusage(resource.RUSAGE_SELF)
    results.close()
    shutil.rmtree(out)
    own_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "start_s": begun - started,
        "wall_s": seconds,
        "cpu_s": counts.cpu_s,
        "own_s": own_s,
        "audio_s": counts.audio_s,
        "segments": counts.segments,
    }


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=4.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--least", type=int, default=1, help="workers to compare with")
    parser.add_argument("--bundle", default="bengalese-finch")
    parser.add_argument("--song", type=float, default=1.0, help="share of the time")
    arguments = parser.parse_args()
    job = make_job(arguments.bundle, None, None, None, None)
    counts = sorted({arguments.least, arguments.workers})
    measured: dict[int, list[dict[str, float]]] = {n: [] for n in counts}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_archive(folder, arguments.hours, arguments.song)
        for _ in range(arguments.repeats):
            for n in counts:
                out = folder / "results"
                found = scan(job, folder / "archive", out, n)
                measured[n].append(found)
                speed = found["audio_s"] / found["wall_s"]
                per_cpu = found["audio_s"] / found["cpu_s"]
                text = f"{n} workers: {speed:.0f} x real time, {per_cpu:.0f} per CPU s"
                print(text, file=sys.stderr, flush=True)
    print(f"{arguments.hours:g} h of sound, {arguments.song:.0%} of it song")
    print("| workers | x real time | x real time per CPU second | start | program |")
    print("| --- | --- | --- | --- | --- |")
    speeds = {}
    for n, runs in measured.items():
        speeds[n] = statistics.median(r["audio_s"] / r["wall_s"] for r in runs)
        per_cpu = statistics.median(r["audio_s"] / r["cpu_s"] for r in runs)
        start_s = statistics.median(r["start_s"] for r in runs)
        own = statistics.median(r["own_s"] / r["wall_s"] for r in runs)
        print(
            f"| {n} | {speeds[n]:.0f} | {per_cpu:.0f} | {start_s:.1f} s "
            f"| {own:.1%} of a core |"
        )
    first, last = min(speeds), max(speeds)
    print(f"\n{last} workers / {first}: {speeds[last] / speeds[first]:.2f} x")
    spread = [r["audio_s"] / r["wall_s"] for r in measured[last]]
    print(f"x real time with {last} workers: {min(spread):.0f} to {max(spread):.0f}")


if __name__ == "__main__":
    main()

"""Load of a Dask scheduler by a scan: CPU a task, and a simulation of large clusters.

A scheduler runs as a process of its own, and so do workers, all in one process. They
get tasks of the size that a scan submits, with nothing to do, through the code of
`neurovocal scan`. The CPU seconds of the scheduler, less those that heartbeats take,
are its service time for a task. So are those of the program that submits and receives
tasks, with the time in which it brings a result to the disk. A simulation of one queue
in front of a single server tells what part of the workers either keeps busy, by the
length of tasks and the number of workers.

    .venv/bin/python bench/scale/scheduler_load.py --tasks 4000
"""

import argparse
import heapq
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

from neurovocal.models.scan.cluster import Cluster
from neurovocal.models.scan.command import make_job
from neurovocal.models.scan.labelling import Done, Job, Task
from neurovocal.models.scan.recordings import Input
from neurovocal.models.scan.results import Results
from neurovocal.models.scan.tables import RecordingRow

N_RECORDINGS = 12  # of a task: minutes of 48 kHz in 64 MiB
PART_BYTES = 30_000  # of the Parquet file that comes back, with a label a second
HEARTBEATS = 200  # a second at most, from all workers together (distributed's rule)
_TICK = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def nothing(job: Job, task: Task) -> Done:
    """Return a result of the usual size without reading anything."""
    rows = tuple(
        RecordingRow(each.name, 1, each.version, "ST", 0, 60.0, 60, "done", None, None)
        for each in task.inputs
    )
    return Done({("2021-05-13", "ST"): os.urandom(PART_BYTES)}, rows, {}, 0.0)


class EmptyCluster(Cluster):
    """Submits tasks that do nothing."""

    work = staticmethod(nothing)


def tasks(n_tasks: int) -> list[Task]:
    """Return tasks like those of a scan of minutes."""
    names = (f"/archive/ST{n % 100:03}/ST_20210513_{n:06}Z.wav" for n in range(10**9))
    return [
        Task(tuple(Input(next(names), 1, "5760044-1") for _ in range(N_RECORDINGS)))
        for _ in range(n_tasks)
    ]


WORKERS = """
import asyncio, sys
from distributed import Worker

async def main():
    workers = [Worker(sys.argv[1], nthreads=1) for _ in range(int(sys.argv[2]))]
    await asyncio.gather(*workers)
    await asyncio.gather(*(worker.finished() for worker in workers))

asyncio.run(main())
"""


def measure(n_tasks: int, n_workers: int) -> dict[str, float]:
    """Run empty tasks on a scheduler of its own; return CPU seconds a task."""
    import distributed

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    quiet: dict[str, Any] = {"stdout": -3, "stderr": -3, "env": env}
    started = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            scheduler = subprocess.Popen(command, cwd=folder, **quiet)
            started.append(scheduler)
            host = [sys.executable, "-c", WORKERS, address, str(n_workers)]
            started.append(subprocess.Popen(host, cwd=folder, **quiet))
            client = distributed.Client(address, timeout=60)
            client.wait_for_workers(n_workers)
            job = make_job(None, None, None, None, None)
            cluster = EmptyCluster(client, job)
            run(cluster, tasks(200), n_workers)  # imports and connections
            begun, before = time.perf_counter(), cpu_s(scheduler.pid)
            time.sleep(20.0)
            idle = (cpu_s(scheduler.pid) - before) / (time.perf_counter() - begun)
            own, before = time.process_time(), cpu_s(scheduler.pid)
            begun = time.perf_counter()
            run(cluster, tasks(n_tasks + 200)[200:], n_workers)
            seconds = time.perf_counter() - begun
            own = time.process_time() - own
            used = cpu_s(scheduler.pid) - before - idle * seconds
            client.close()
        finally:
            for process in started:
                process.kill()
                process.wait()
    commit, resume = disk_s(job)
    return {
        "scheduler_s": used / n_tasks,
        "client_s": own / n_tasks,
        "heartbeat_s": idle / (n_workers / interval_s(n_workers)),
        "tasks_a_second": n_tasks / seconds,
        "commit_s": commit,
        "resume_s": resume,
    }


def interval_s(n_workers: int) -> float:
    """Return the time between two heartbeats of a worker, by distributed's rule."""
    for most, seconds in ((10, 0.5), (49, 1.0), (199, 2.0)):
        if n_workers <= most:
            return seconds
    return n_workers / HEARTBEATS + 1


def memory_bytes(n_recordings: int = 50_000) -> float:
    """Return the bytes that the program holds for each recording of an archive."""
    tracemalloc.start()
    held = [
        each for task in tasks(n_recordings // N_RECORDINGS) for each in task.inputs
    ]
    finished = {each.name: each.version for each in held}
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size / len(finished)


def disk_s(job: Job, n_tasks: int = 100) -> tuple[float, float]:
    """Return the wall seconds in which a task's result is written, and read again."""
    with tempfile.TemporaryDirectory() as folder:
        results = Results(Path(folder, "out"), job.provenance)
        results.open()
        done = [nothing(job, task) for task in tasks(n_tasks)]
        begun = time.perf_counter()
        for each in done:
            results.commit(each)
        commit = time.perf_counter() - begun
        results.close()
        again = Results(results.folder, job.provenance)
        begun = time.perf_counter()
        again.open()
        read = time.perf_counter() - begun
        again.close()
    return commit / n_tasks, read / n_tasks


def run(cluster: Cluster, todo: list[Task], n_workers: int) -> None:
    """Submit tasks as a scan does, and wait for all of them."""
    waiting = iter(todo)
    while True:
        while cluster.running < 2 * n_workers + 1:
            if (task := next(waiting, None)) is None:
                break
            cluster.submit(task)
        if not cluster.running:
            return
        ended = cluster.next(0.2)
        if ended is not None and isinstance(ended[1], Exception):
            raise ended[1]


def busy_share(n_workers: int, task_s: float, service_s: float) -> float:
    """Return the share of the time for which workers work, by simulation.

    Each worker asks the scheduler when its task ends; the scheduler serves one after
    the other, and a worker holds one task more than it runs.

    Parameters
    ----------
    n_workers : int
        Workers with one thread each.
    task_s : float
        Mean length of a task; lengths vary by a third.
    service_s : float
        Time that the scheduler needs for a task, with its share of heartbeats.
    """
    rng = random.Random(0)
    # Rounds of all workers; the first half is left out.
    until = 8 * max(task_s, n_workers * service_s)
    # The end of a task and its worker, which has the next task already.
    ends = [(rng.random() * task_s, worker) for worker in range(n_workers)]
    heapq.heapify(ends)
    arrived = [0.0] * n_workers  # when the task after the next one is there
    free, worked = 0.0, 0.0
    while ends[0][0] < until:
        now, worker = heapq.heappop(ends)
        begin = max(now, arrived[worker])
        free = max(free, now) + service_s
        arrived[worker] = free
        end = begin + max(0.1 * task_s, rng.gauss(task_s, task_s / 3))
        worked += max(0.0, min(end, until) - max(begin, until / 2))
        heapq.heappush(ends, (end, worker))
    return worked / (until / 2 * n_workers)


def main() -> None:
    """Measure and simulate, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=4000)
    parser.add_argument("--workers", type=int, default=40)
    arguments = parser.parse_args()
    found = measure(arguments.tasks, arguments.workers)
    print(f"{arguments.tasks} empty tasks, {arguments.workers} workers")
    print("| each task | ms |\n| --- | --- |")
    for key, name in (
        ("scheduler_s", "scheduler, CPU"),
        ("client_s", "program, CPU"),
        ("commit_s", "result to this disk, wall"),
        ("resume_s", "result read by the run that continues, wall"),
        ("heartbeat_s", "(a heartbeat of a worker: scheduler, CPU, at most)"),
    ):
        print(f"| {name} | {found[key] * 1e3:.2f} |")
    print(f"\n{found['tasks_a_second']:.0f} tasks a second with all processes here")
    print(f"{memory_bytes():.0f} bytes of memory for each recording of the archive")
    lengths = (3.0, 12.0, 48.0)
    for name, task_s, beat_s in (
        ("scheduler", found["scheduler_s"], found["heartbeat_s"]),
        ("program that writes", found["client_s"] + found["commit_s"], 0.0),
    ):
        heads = " | ".join(f"tasks of {length:g} s" for length in lengths)
        print(f"\n| {name} | {heads} |")
        print("| --- |" + " --- |" * len(lengths))
        for n_workers in (100, 1000, 2000, 5000, 10_000):
            beats = n_workers / interval_s(n_workers) * beat_s
            service_s = task_s / max(0.01, 1 - beats)
            cells = [
                f"{busy_share(n_workers, length, service_s):.0%}" for length in lengths
            ]
            print(f"| {n_workers} workers | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()

"""Load of a Dask scheduler by a scan: CPU a task, and a simulation of large clusters.

A scheduler and workers run as processes of their own and get tasks of the size that a
scan submits, with nothing to do, through the code of `neurovocal scan`. The CPU seconds
of the scheduler, divided by the number of tasks, are its service time. A simulation of
one queue in front of a single server then tells what part of the workers a scheduler
keeps busy, by the length of tasks and the number of workers.

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
from pathlib import Path
from typing import Any

from neurovocal.models.scan.cluster import Cluster
from neurovocal.models.scan.command import make_job
from neurovocal.models.scan.labelling import Done, Job, Task
from neurovocal.models.scan.recordings import Input
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


def measure(n_tasks: int, n_workers: int) -> dict[str, float]:
    """Run empty tasks on a scheduler of its own; return CPU seconds a task."""
    import distributed

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    python = [sys.executable, "-m"]
    command = [*python, "distributed.cli.dask_scheduler", "--host", "127.0.0.1"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    quiet: dict[str, Any] = {"stdout": -3, "stderr": -3, "env": env}
    started = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            begin = [*command, "--port", str(port), "--no-dashboard"]
            started.append(subprocess.Popen(begin, cwd=folder, **quiet))
            worker = [*python, "distributed.cli.dask_worker", address, "--no-nanny"]
            options = ["--nthreads", "1", "--no-dashboard"]
            started += [
                subprocess.Popen([*worker, *options], cwd=folder, **quiet)
                for _ in range(n_workers)
            ]
            client = distributed.Client(address, timeout=60)
            client.wait_for_workers(n_workers)
            job = make_job(None, None, None, None, None)
            cluster = EmptyCluster(client, job)
            run(cluster, tasks(50))  # imports and connections
            before = [cpu_s(process.pid) for process in started]
            own, begun = time.process_time(), time.perf_counter()
            run(cluster, tasks(n_tasks + 50)[50:])
            seconds = time.perf_counter() - begun
            own = time.process_time() - own
            after = [cpu_s(process.pid) for process in started]
            time.sleep(10.0)  # heartbeats alone
            idle = cpu_s(started[0].pid) - after[0]
            client.close()
        finally:
            for process in started:
                process.kill()
                process.wait()
    used = [b - a for a, b in zip(before, after, strict=True)]
    return {
        "scheduler_s": used[0] / n_tasks,
        "client_s": own / n_tasks,
        "worker_s": sum(used[1:]) / n_tasks,
        "tasks_a_second": n_tasks / seconds,
        "heartbeat_s": idle / (10.0 * n_workers / 0.5),
    }


def run(cluster: Cluster, todo: list[Task]) -> None:
    """Submit tasks as a scan does, and wait for all of them."""
    waiting = iter(todo)
    while True:
        while cluster.running < 9:
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
    until = 10 * task_s + n_workers * service_s * 3

    def length() -> float:
        return max(0.1 * task_s, rng.gauss(task_s, task_s / 3))

    # (time, worker): the end of a task. Each worker has one task that waits with it.
    ends = [(rng.random() * task_s, worker) for worker in range(n_workers)]
    heapq.heapify(ends)
    next_ready = [0.0] * n_workers
    free, worked = 0.0, 0.0
    while ends and ends[0][0] < until:
        now, worker = heapq.heappop(ends)
        begin = max(now, next_ready[worker])
        free = max(free, now) + service_s
        next_ready[worker] = free  # when the task after the next one has arrived
        took = length()
        worked += min(took, max(0.0, until - begin))
        heapq.heappush(ends, (begin + took, worker))
    return worked / (until * n_workers)


def main() -> None:
    """Measure and simulate, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=4000)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    found = measure(arguments.tasks, arguments.workers)
    print(f"{arguments.tasks} empty tasks, {arguments.workers} workers")
    print("| CPU a task | ms |")
    print("| --- | --- |")
    for key, name in (
        ("scheduler_s", "scheduler"),
        ("client_s", "program"),
        ("worker_s", "worker"),
        ("heartbeat_s", "scheduler, a heartbeat of a worker"),
    ):
        print(f"| {name} | {found[key] * 1e3:.2f} |")
    print(
        f"\n{found['tasks_a_second']:.0f} tasks a second here, all processes together"
    )
    # The program and the scheduler are two processes: the slower one is the limit.
    task_s = max(found["scheduler_s"], found["client_s"])
    lengths = (2.8, 11.0, 45.0)
    print("\n| workers | " + " | ".join(f"tasks of {s:g} s" for s in lengths) + " |")
    print("| --- |" + " --- |" * len(lengths))
    for n_workers in (100, 1000, 2000, 5000, 10_000, 20_000):
        cells = []
        for length in lengths:
            interval = 0.5 if n_workers <= 10 else n_workers / HEARTBEATS + 1
            beats = n_workers / interval * found["heartbeat_s"]
            service_s = task_s / max(1e-3, 1 - beats)
            load = n_workers / length * service_s
            busy = busy_share(n_workers, length, service_s)
            cells.append(f"{busy:.0%} (load {load:.0%})")
        print(f"| {n_workers} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()

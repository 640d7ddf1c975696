"""Scan of an archive: group recordings to tasks, run them, keep what is finished."""

from collections import deque
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field

from neurovocal.engine import ConfigError
from neurovocal.models.scan.cluster import Cluster, WorkerKilledError
from neurovocal.models.scan.labelling import Done, Task
from neurovocal.models.scan.recordings import Input, station_of
from neurovocal.models.scan.results import Results

# Recordings of a task, whatever their size: each costs a few ms to open.
MOST_RECORDINGS = 500
_WAIT_S = 0.2
# Tasks at the scheduler for each thread of a worker: its memory is bounded, and no
# worker waits for the next task.
_AHEAD = 2
_KILLED = "its worker process was killed while it was read (too little memory?)"


@dataclass(slots=True)
class Counts:
    """What a run has to do, and what it has done."""

    total: int  # recordings
    total_bytes: int
    already: int = 0  # recordings that an earlier run has finished
    recordings: int = 0
    bytes: int = 0
    segments: int = 0
    audio_s: float = 0.0
    cpu_s: float = 0.0
    threads: int = 0
    later: dict[str, str] = field(default_factory=dict)


def make_tasks(
    inputs: Sequence[Input],
    finished: Container[str],
    most_bytes: int,
    station: str | None,
) -> Iterator[Task]:
    """Yield tasks for all recordings that are not finished, in the order of the list.

    A task ends before a recording that would make it larger than `most_bytes`, before
    another station, and at a recording that is finished. The tasks of a run that was
    interrupted are therefore those that remain of an uninterrupted one.
    """
    group: list[Input] = []
    size, place = 0, ""
    for each in inputs:
        own = station_of(each.name, station)
        is_finished = each.shown in finished
        larger = size + (each.size or 0) > most_bytes
        full = larger or len(group) == MOST_RECORDINGS
        if group and (is_finished or own != place or full):
            yield Task(tuple(group))
            group, size = [], 0
        if not is_finished:
            group.append(each)
            size, place = size + (each.size or 0), own
    if group:
        yield Task(tuple(group))


def run_tasks(
    tasks: Iterator[Task],
    cluster: Cluster,
    results: Results,
    counts: Counts,
    tell: Callable[[Counts], None],
) -> None:
    """Run tasks until all have ended, and commit each result as it comes.

    Parameters
    ----------
    tasks : iterator of Task
        Tasks, in the order in which they are begun.
    cluster : Cluster
        Workers.
    results : Results
        Open folder of results.
    counts : Counts
        Is updated.
    tell : callable
        Called a few times a second with the counts.

    Raises
    ------
    ConfigError
        A worker cannot do the job.
    OSError
        The disk of the results fails.
    SchedulerLostError
        The scheduler has ended.
    """
    # Tasks whose workers were killed, in single recordings.
    alone: deque[Task] = deque()
    while True:
        counts.threads = cluster.n_threads
        room = max(1, counts.threads) * _AHEAD + 1
        while cluster.running < room:
            task = alone.popleft() if alone else next(tasks, None)
            if task is None:
                break
            cluster.submit(task)
        if not cluster.running:
            return
        ended = cluster.next(_WAIT_S)
        if ended is not None:
            task, done = ended
            if isinstance(done, Done):
                results.commit(done)
                _count(counts, task, done)
            elif isinstance(done, WorkerKilledError) and len(task.inputs) > 1:
                alone += [Task((each,)) for each in task.inputs]
            elif isinstance(done, ConfigError):
                raise done
            else:
                _fail(counts, task, done)
        tell(counts)


def _count(counts: Counts, task: Task, done: Done) -> None:
    counts.recordings += len(done.recordings)
    counts.bytes += task.size
    counts.segments += sum(row.segments for row in done.recordings)
    counts.audio_s += sum(row.audio_s for row in done.recordings)
    counts.cpu_s += done.cpu_s
    counts.later.update(done.later)


def _fail(counts: Counts, task: Task, error: Exception) -> None:
    """Note a task that cannot be done; the next run tries it again."""
    reason = f"a worker failed ({type(error).__name__}: {error})"
    if isinstance(error, WorkerKilledError):
        reason = _KILLED
    counts.bytes += task.size
    counts.later.update((each.shown, reason) for each in task.inputs)

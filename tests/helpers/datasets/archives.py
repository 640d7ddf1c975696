"""Archives of small recordings, and scans of them without worker processes."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from bundles.tone_dataset import RATE, song

from neurovocal.models.scan.labelling import Done, Job, Task, run_task


def make_archive(
    folder: Path, n_days: int = 2, n_stations: int = 2, repeat: int = 1
) -> Path:
    """Write two recordings a day of each station; the second ends after midnight.

    Each holds two seconds of tones, `repeat` times.
    """
    rng = np.random.default_rng(0)
    for station in range(n_stations):
        for day in range(n_days):
            for time in ("120000Z", "235958.5Z"):
                samples, _ = song(rng)
                name = f"ST{station}_2021051{day}_{time}.wav"
                path = folder / f"ST{station}" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, np.tile(samples, repeat), RATE, subtype="FLOAT")
    return folder


class InlineCluster:
    """Runs each task in this process, in an order of its own.

    Parameters
    ----------
    job : Job
        What is done to every recording.
    n_threads : int
        Bounds how many tasks are submitted ahead.
    seed : int
        Of the order in which submitted tasks end.
    before : callable
        Called with each task before it runs; may raise.
    """

    def __init__(
        self,
        job: Job,
        n_threads: int = 1,
        seed: int = 0,
        before: Callable[[Task], None] = lambda task: None,
    ) -> None:
        self.n_threads = n_threads
        self.tasks: list[Task] = []  # those that ran
        self._job = job
        self._before = before
        self._waiting: list[Task] = []
        self._random = random.Random(seed)

    @property
    def running(self) -> int:
        return len(self._waiting)

    def submit(self, task: Task) -> None:
        self._waiting.append(task)

    def next(self, timeout: float) -> tuple[Task, Done | Exception] | None:
        task = self._waiting.pop(self._random.randrange(len(self._waiting)))
        self.tasks.append(task)
        try:
            self._before(task)
            return task, run_task(self._job, task)
        except Exception as error:
            return task, error


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder of results."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def rows(folder: Path) -> list[dict[str, Any]]:
    """Return all segments of a folder of results, as any reader of Parquet has them."""
    import pyarrow.dataset

    data = pyarrow.dataset.dataset(folder / "labels", partitioning="hive")
    found: list[dict[str, Any]] = data.to_table().to_pylist()
    return sorted(found, key=lambda row: (row["recording"], row["onset"]))

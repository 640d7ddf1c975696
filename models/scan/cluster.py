"""Dask cluster of a scan: processes on this machine, or any scheduler that runs."""

import atexit
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from queue import Empty, SimpleQueue
from typing import Any

from neurovocal.engine import ConfigError, NeurovocalError
from neurovocal.models.scan.labelling import Done, Job, Task, run_task

_CONNECT_S = 20.0
_CLOSE_S = 3.0
_LOOPBACK = "127.0.0.1"
# Of the processes of a scan on this machine: Dask samples their stacks, and looks after
# their loops and memory, up to a hundred times a second, while they compute.
_QUIET_WORKERS = {
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.monitor-interval": "1s",
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.admin.system-monitor.gil.enabled": False,
}


class SchedulerLostError(NeurovocalError):
    """The scheduler, or the connection to it, has ended."""


class WorkerKilledError(Exception):
    """The worker processes that ran a task were killed, one after the other."""


def require_dask() -> None:
    """Raise ConfigError unless what a scan needs is installed."""
    try:
        import dask  # noqa: F401
        import distributed  # noqa: F401
        import fsspec  # noqa: F401
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"scan needs {error.name or 'dask'}, which is not installed: pip install "
            "'neurovocal[scan]'"
        ) from error


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C to the program that started this worker, and its log, too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("neurovocal").setLevel(logging.ERROR)


class Cluster:
    """Tasks of a job on the workers of a Dask scheduler.

    Parameters
    ----------
    client : distributed.Client
        Connected client.
    job : Job
        What is done to every recording.
    """

    work: Callable[[Job, Task], Done] = staticmethod(run_task)

    def __init__(self, client: Any, job: Job) -> None:
        self._client = client
        # A task of its own, so that workers get it once, and again if one is killed.
        self._job = client.submit(_same, job, key=f"job-{job.digest}", pure=True)
        self._running: dict[str, tuple[Any, Task]] = {}
        self._finished: SimpleQueue[Any] = SimpleQueue()

    @property
    def running(self) -> int:
        """Number of tasks that were submitted and not returned."""
        return len(self._running)

    @property
    def n_threads(self) -> int:
        """Tasks that the workers run at the same time; workers come and go."""
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        return sum(worker["nthreads"] for worker in workers)

    def submit(self, task: Task) -> None:
        """Let a worker run a task."""
        future = self._client.submit(
            self.work, self._job, task, key=f"scan-{task.name}", pure=False
        )
        self._running[future.key] = future, task
        future.add_done_callback(self._finished.put)

    def next(self, timeout: float) -> tuple[Task, Done | Exception] | None:
        """Return a task that has ended, with its result or error.

        Parameters
        ----------
        timeout : float
            Seconds after which None is returned.

        Raises
        ------
        SchedulerLostError
            The scheduler has ended.
        """
        self._require_scheduler()
        try:
            future = self._finished.get(timeout=timeout)
        except Empty:
            self._require_scheduler()
            return None
        if future.status == "lost":
            # Its worker was killed with the result: the scheduler runs it again.
            future.add_done_callback(self._finished.put)
            return None
        if future.status == "cancelled":
            raise SchedulerLostError("the scheduler has dropped the tasks")
        _, task = self._running.pop(future.key)
        return task, self._result(future)

    def _result(self, future: Any) -> Done | Exception:
        if future.status == "error":
            error: Exception = future.exception()
            is_killed = isinstance(error, _distributed().KilledWorker)
            return WorkerKilledError() if is_killed else error
        try:
            done: Done = future.result()
        except OSError as error:
            raise SchedulerLostError("the connection to the scheduler broke") from error
        return done

    def _require_scheduler(self) -> None:
        if self._client.status != "running":
            raise SchedulerLostError("the scheduler has ended")


@contextmanager
def open_cluster(job: Job, workers: int, scheduler: str | None) -> Iterator[Cluster]:
    """Yield a cluster: worker processes on this machine, or a scheduler's workers.

    Parameters
    ----------
    job : Job
        What is done to every recording.
    workers : int
        Number of processes on this machine, with one thread each.
    scheduler : str, optional
        Address of a scheduler that runs already, such as ``tcp://10.0.0.1:8786``.

    Raises
    ------
    ConfigError
        There is no scheduler at this address.
    """
    distributed = _distributed()
    _quiet()
    if scheduler is not None:
        _require_address(scheduler)
        try:
            client = distributed.Client(
                scheduler, timeout=_CONNECT_S, set_as_default=False
            )
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"--scheduler: no Dask scheduler answers at '{scheduler}' within "
                f"{_CONNECT_S:g} s"
            ) from error
        try:
            yield Cluster(client, job)
        finally:
            with suppress(Exception):
                client.close(timeout=_CLOSE_S)
        return
    with _local_client(distributed, workers) as client:
        yield Cluster(client, job)


@contextmanager
def _local_client(distributed: Any, workers: int) -> Iterator[Any]:
    """Yield a client of a scheduler in this process and of workers on this machine."""
    with import_module("dask.config").set(_QUIET_WORKERS):
        loop = _loop_without_interrupts()
        local = distributed.LocalCluster(
            loop=loop.loop,
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host=_LOOPBACK,
            dashboard_address=f"{_LOOPBACK}:0",
            silence_logs=logging.CRITICAL,
            preload=[__name__],
        )
        client = distributed.Client(local, set_as_default=False)
        try:
            yield client
        finally:
            with suppress(Exception):
                client.close(timeout=_CLOSE_S)
            with suppress(Exception):
                local.close(timeout=_CLOSE_S)
            with suppress(Exception):
                loop.stop(timeout=_CLOSE_S)


def _require_address(scheduler: str) -> None:
    """Raise ConfigError unless the address names a host that is known, and a port."""
    addressing = import_module("distributed.comm.addressing")
    try:
        place = addressing.parse_address(scheduler, strict=True)[1]
        host, port = addressing.parse_host_port(place)
        socket.getaddrinfo(host, port)
    except (OSError, OverflowError, ValueError) as error:
        unknown = isinstance(error, socket.gaierror)
        reason = "its host is not known" if unknown else "it is no address"
        raise ConfigError(
            f"--scheduler: '{scheduler}': {reason}; give one such as tcp://10.0.0.1:8786"
        ) from error


def _loop_without_interrupts() -> Any:
    """Return a running event loop whose threads and processes get no Ctrl-C.

    Processes inherit the mask of the thread that starts them: one that Ctrl-C reaches
    before `dask_setup` would write a traceback.
    """
    runner = import_module("distributed.utils").LoopRunner()
    mask = getattr(signal, "pthread_sigmask", None)  # Windows has none
    if mask is None:
        runner.start()
        return runner
    # It unblocks SIGINT in the thread that starts it.
    import_module("multiprocessing.resource_tracker").ensure_running()
    before = mask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        runner.start()
    finally:
        mask(signal.SIG_SETMASK, before)
    return runner


def _distributed() -> Any:
    return import_module("distributed")


def _same(job: Job) -> Job:
    return job


def _quiet() -> None:
    """Keep Dask's log of workers, and its errors at the exit, from the terminal."""
    # Dask gives some of them a level and a handler of their own.
    silent = ("distributed", "tornado", "asyncio")
    for name in [*logging.root.manager.loggerDict, *silent]:
        if name.partition(".")[0] in silent:
            logging.getLogger(name).setLevel(logging.CRITICAL)
    # Clusters are closed here; one whose start was interrupted would fail at the exit.
    spec = import_module("distributed.deploy.spec")
    atexit.unregister(spec.close_clusters)

"""Worker process as the main process sees it: commands, replies, state and its end."""

import logging
import multiprocessing
import signal
from collections.abc import Callable, Sequence
from itertools import count
from queue import Empty, SimpleQueue
from threading import Event as Flag
from threading import Lock, Thread
from typing import Any

from neurovocal.engine.contracts.errors import StageError
from neurovocal.engine.runtime.processes.host import LaneBeat, Setup, serve
from neurovocal.engine.runtime.processes.packing import unpack_error
from neurovocal.engine.support.calls import Calls
from neurovocal.engine.support.platform import signals_held

log = logging.getLogger("neurovocal")

_POLL_S = 0.1
_END_S = 2.0


class WorkerProcess:
    """A started process with some lanes.

    Parameters
    ----------
    setup : Setup
        Plan and details of its lanes.
    number : int
        Of the worker, from 1, for sentences.
    on_beat : callable
        ``on_beat(beats)`` gets the state of all lanes, several times a second.
    give_up : callable
        ``give_up(sentence)`` ends the run.

    Attributes
    ----------
    pipes : list of Connection
        Messages of each lane.
    calls : Calls
        One that lasts as long as the process does not tell its state; for the watchdog.
    votes : SimpleQueue of str
        Why its new lanes may not take over, or an empty text.
    """

    def __init__(
        self,
        setup: Setup,
        number: int,
        on_beat: Callable[[Sequence[LaneBeat]], None],
        give_up: Callable[[str], None],
    ) -> None:
        self.number = number
        self.calls = Calls()
        self.votes: SimpleQueue[str] = SimpleQueue()
        self._on_beat = on_beat
        self._give_up = give_up
        self._replies: dict[int, SimpleQueue[tuple[Any, Any]]] = {}
        self._numbers = count()
        self._lock = Lock()
        self._ending = Lock()
        self._gone = Flag()
        self._ready = Flag()
        self._refusal: Any = None
        spawn = multiprocessing.get_context("spawn")
        self._control, far = spawn.Pipe()
        pairs = [spawn.Pipe(duplex=False) for _ in setup.lanes]
        self.pipes = [near for near, _ in pairs]
        far_pipes = [one for _, one in pairs]
        self._process = spawn.Process(
            target=serve,
            args=(far, far_pipes, setup),
            name=f"nv-worker-{number}",
            daemon=True,
        )
        with signals_held():
            self._process.start()
        # Only with the process itself their other ends are closed.
        for one in (far, *far_pipes):
            one.close()
        Thread(target=self._listen, name=f"nv-worker-{number}", daemon=True).start()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid or 0

    @property
    def is_gone(self) -> bool:
        """Whether the process has ended."""
        return self._gone.is_set()

    def wait_ready(self) -> None:
        """Wait until the process has loaded its plugins and built its sources.

        Raises
        ------
        NeurovocalError
            It ended before, or cannot do so.
        """
        while not self._ready.wait(_POLL_S):
            if self.is_gone:
                break
        if self._refusal is not None:
            raise unpack_error(self._refusal)
        if not self._ready.is_set():
            raise StageError(self.end_sentence())

    def call(self, name: str, *arguments: object) -> Any:
        """Let the process carry out a command, and return its answer.

        Raises
        ------
        NeurovocalError
            The command failed, or the process has ended.
        """
        number = next(self._numbers)
        reply: SimpleQueue[tuple[Any, Any]] = SimpleQueue()
        self._replies[number] = reply
        try:
            self.send(number, name, *arguments)
            while True:
                try:
                    answer, error = reply.get(timeout=_POLL_S)
                    break
                except Empty:
                    if self.is_gone and reply.empty():
                        raise StageError(self.end_sentence()) from None
        finally:
            del self._replies[number]
        if error is not None:
            raise unpack_error(error)
        return answer

    def send(self, *command: object) -> None:
        """Send a command without waiting; one that has ended does not get it."""
        try:
            with self._lock:
                self._control.send(command)
        except OSError:
            log.debug("worker process %d takes no commands any more", self.number)

    def end_sentence(self) -> str:
        """Return how the process has ended, as one sentence."""
        self._wait_end()
        code = self._process.exitcode
        how = "ended by itself" if code is None else f"ended with exit code {code}"
        if code is not None and code < 0:
            try:
                how = f"was killed by {signal.Signals(-code).name}"
            except ValueError:
                how = f"was killed by signal {-code}"
        return f"worker process {self.number} (pid {self.pid}) {how}"

    def close(self) -> None:
        """End the process: in order, or by force after two seconds."""
        self.send("end")
        self._wait_end()
        if self._process.is_alive():
            self._process.kill()
            self._wait_end()
        self.calls.returned = self.calls.entered

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self.calls.returned = self.calls.entered

    def _wait_end(self) -> None:
        # One thread at a time: the exit code of a process can be fetched only once,
        # and the standard library tells a second thread None.
        with self._ending:
            self._process.join(_END_S)

    def _listen(self) -> None:
        try:
            while True:
                self._take(self._control.recv())
        except (EOFError, OSError):
            pass
        except Exception:
            log.exception("worker process %d cannot be understood", self.number)
            self._process.kill()
        self._gone.set()
        self.calls.returned = self.calls.entered

    def _take(self, item: tuple[Any, ...]) -> None:
        match item:
            case ("beat", beats):
                self.calls.returned = self.calls.entered
                self.calls.entered += 1
                self._on_beat(beats)
            case ("log", fields):
                record = logging.makeLogRecord(fields)
                logger = logging.getLogger(record.name)
                if logger.isEnabledFor(record.levelno):
                    logger.handle(record)
            case ("reply", number, answer, error):
                reply = self._replies.get(number)
                if reply is not None:
                    reply.put((answer, error))
            case ("vote", reason):
                self.votes.put(reason)
            case ("give_up", sentence):
                self._give_up(sentence)
            case ("ready", _):
                self._ready.set()
            case ("refused", error):
                self._refusal = error
                self._ready.set()

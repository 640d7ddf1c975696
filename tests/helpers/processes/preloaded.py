"""Runs the program from a process that has loaded it already, to save time.

    python preloaded.py SOCKET

The program is found by its name among the installed console scripts, loaded once, let
list its plugins, and called in a fork for each command: with its own arguments, folder,
environment, streams and exit code, as its own process would be. Golden texts are
recorded without this; their test compares with them, so a difference between the two
ways would be seen.
"""

import gc
import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, redirect_stderr, redirect_stdout, suppress
from importlib.metadata import entry_points
from pathlib import Path
from threading import Thread
from typing import TextIO

_PROGRAM = "neurovocal"
# How often it is looked whether the caller lives.
_LOOK_S = 1.0


def serve(path: str) -> None:
    """Run a command for each connection, as long as the caller lives."""
    caller = os.getppid()
    (point,) = entry_points(group="console_scripts", name=_PROGRAM)
    program = point.load()
    _warm_up(program)
    gc.freeze()  # forks need not look at what was there before, nor copy it
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    listener.settimeout(_LOOK_S)
    print("ready", flush=True)
    while os.getppid() == caller:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        connection.setblocking(True)
        if os.fork() == 0:
            listener.close()
            _handle(connection, program)
        connection.close()
        _reap()


def _warm_up(program: Callable[[], object]) -> None:
    """List the plugins: that loads nearly everything, and starts nothing."""
    sys.argv = [_PROGRAM, "plugins"]
    # A command keeps its own copy of the stderr that it begins with.
    unseen = io.StringIO()
    with redirect_stdout(unseen), redirect_stderr(unseen), suppress(SystemExit):
        program()


def _handle(connection: socket.socket, program: Callable[[], object]) -> None:
    """Read a request, run it in another fork and answer with its exit code."""
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("r", encoding="utf-8") as file:
        wanted = json.loads(file.readline())
    child = os.fork()
    if child == 0:
        connection.close()
        _become(wanted, streams)
        sys.exit(program())
    for stream in streams:
        os.close(stream)
    connection.sendall(f"{child}\n".encode())
    _, status = os.waitpid(child, 0)
    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _become(wanted: dict[str, object], streams: list[int]) -> None:
    """Take the folder, environment, streams and arguments of a command."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    # Those of this process know what was there before, such as whether it can seek.
    sys.stdin = sys.__stdin__ = _standard(0, "r")
    sys.stdout = sys.__stdout__ = _standard(1, "w")
    sys.stderr = sys.__stderr__ = _standard(2, "w", 1, "backslashreplace")
    os.chdir(str(wanted["folder"]))
    environment, arguments = wanted["environment"], wanted["arguments"]
    assert isinstance(environment, dict)
    assert isinstance(arguments, list)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [str(wanted["program"]), *map(os.fsdecode, arguments)]


def _standard(
    number: int, mode: str, buffering: int = -1, errors: str = "strict"
) -> TextIO:
    return open(number, mode, buffering, errors=errors, closefd=False)


def _reap() -> None:
    """Collect forks that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


class Client:
    """Asks such a process, which it starts, to run commands.

    Parameters
    ----------
    folder : Path
        Where the socket is put.
    environment : dict
        Environment in which the program is loaded, and of commands by default.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._environment = environment
        self._path = str(folder / "s")
        self._process = subprocess.Popen(
            [sys.executable, __file__, self._path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=environment,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def run(
        self,
        program: str,
        arguments: list[str],
        cwd: Path,
        stdin: bytes,
        timeout_s: float,
        environment: dict[str, str] | None = None,
    ) -> tuple[int, bytes, bytes]:
        """Run a command; return its exit code, stdout and stderr."""
        wanted = {
            "program": program,
            "arguments": arguments,
            "folder": str(cwd),
            "environment": self._environment if environment is None else environment,
        }
        with ExitStack() as stack:
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.settimeout(timeout_s)
            connection.connect(self._path)
            fed, feeding = os.pipe()
            ends = [os.pipe() for _ in range(2)]
            socket.send_fds(connection, [b"!"], [fed, *(write for _, write in ends)])
            for handle in (fed, *(write for _, write in ends)):
                os.close(handle)
            connection.sendall(f"{json.dumps(wanted)}\n".encode())
            answer = stack.enter_context(connection.makefile("r"))
            threads = [Thread(target=_feed, args=(feeding, stdin), daemon=True)]
            heard: list[list[bytes]] = [[], []]
            for (read, _), into in zip(ends, heard, strict=True):
                threads.append(Thread(target=_hear, args=(read, into), daemon=True))
            for thread in threads:
                thread.start()
            child = int(answer.readline())
            try:
                code = int(answer.readline())
            except BaseException:
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
                raise
            for thread in threads:
                thread.join(timeout_s)
            return code, b"".join(heard[0]), b"".join(heard[1])

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def _feed(handle: int, content: bytes) -> None:
    with suppress(BrokenPipeError), os.fdopen(handle, "wb") as file:
        file.write(content)


def _hear(handle: int, into: list[bytes]) -> None:
    with os.fdopen(handle, "rb") as file:
        into.append(file.read())


if __name__ == "__main__":
    serve(sys.argv[1])

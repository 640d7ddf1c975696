"""Runs the program from a process that has loaded it already, to save time.

    python preloaded.py SOCKET

The program is found by its name among the installed console scripts, loaded once, let
list its plugins, and called in a fork for each command: with its own arguments, folder,
streams and exit code, as its own process would be. Recordings are made without this;
the test compares with them, so a difference between the two ways would be seen.
"""

import io
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from importlib.metadata import entry_points
from pathlib import Path

_PROGRAM = "neurovocal"
# How often it is looked whether the caller lives.
_LOOK_S = 1.0


def serve(path: str) -> None:
    """Run a command for each connection, as long as the caller lives."""
    caller = os.getppid()
    (point,) = entry_points(group="console_scripts", name=_PROGRAM)
    program = point.load()
    _warm_up(program)
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
    with connection.makefile("r", encoding="utf-8") as file:
        wanted = json.loads(file.readline())
    child = os.fork()
    if child == 0:
        connection.close()
        _become(wanted)
        sys.exit(program())
    _, status = os.waitpid(child, 0)
    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _become(wanted: dict[str, object]) -> None:
    """Take the folder, streams and arguments of a command."""
    folder = Path(str(wanted["folder"]))
    names = (("stdin", os.O_RDONLY), ("stdout", os.O_WRONLY), ("stderr", os.O_WRONLY))
    for number, (name, mode) in enumerate(names):
        handle = os.open(str(wanted[name]), mode)
        os.dup2(handle, number)
        os.close(handle)
    os.chdir(folder)
    arguments = wanted["arguments"]
    assert isinstance(arguments, list)
    sys.argv = [str(wanted["program"]), *map(str, arguments)]


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
        Where the socket and the streams of commands are put.
    environment : dict
        Environment of all commands.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._path = str(folder / "s")
        self._number = 0
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
    ) -> tuple[int, bytes, bytes]:
        """Run a command; return its exit code, stdout and stderr."""
        with tempfile.TemporaryDirectory(dir=self._folder) as name:
            paths = {each: Path(name) / each for each in ("stdin", "stdout", "stderr")}
            for each, path in paths.items():
                path.write_bytes(stdin if each == "stdin" else b"")
            wanted = {
                "program": program,
                "arguments": arguments,
                "folder": str(cwd),
                **{each: str(path) for each, path in paths.items()},
            }
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(timeout_s)
                connection.connect(self._path)
                connection.sendall(f"{json.dumps(wanted)}\n".encode())
                code = int(connection.recv(64))
            return code, paths["stdout"].read_bytes(), paths["stderr"].read_bytes()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


if __name__ == "__main__":
    serve(sys.argv[1])

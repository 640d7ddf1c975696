"""Child process that writes audio to its standard output."""

import os
import shlex
import signal
import subprocess
from contextlib import suppress
from threading import Thread

from neurovocal.engine import ConfigError
from neurovocal.engine.support.child import OrphanGuard
from neurovocal.engine.support.credentials import hide_credentials
from neurovocal.engine.support.platform import end_group, own_group

_STDERR_BYTES = 4096
_GRACE_S = 1.0


def split_command(command: str | list[str]) -> list[str]:
    """Return program and arguments; a string is split as a shell does, without one.

    Raises
    ------
    ConfigError
        A quotation mark is left open, or there is no program.
    """
    try:
        parts = shlex.split(command) if isinstance(command, str) else list(command)
    except ValueError as error:
        shown = hide_credentials(repr(command))
        raise ConfigError(f"command: {shown} cannot be split ({error})") from error
    if not parts:
        raise ConfigError("command: name a program")
    return parts


class Command:
    """Running program in a session of its own.

    Ctrl-C therefore reaches the engine alone, which ends the program in order,
    together with the processes that it started; they also end when the engine is
    killed.

    Parameters
    ----------
    arguments : list of str
        Program and arguments.

    Raises
    ------
    ConfigError
        The program does not exist or cannot be run.
    """

    def __init__(self, arguments: list[str]) -> None:
        self.name = os.path.basename(arguments[0])
        try:
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                **own_group(),
            )
        except OSError as error:
            raise ConfigError(
                f"command '{arguments[0]}' cannot be run: {error.strerror}"
            ) from error
        self._guard = OrphanGuard(self._process.pid)
        assert self._process.stdout is not None
        self.fd = self._process.stdout.fileno()
        # Only the end is kept: some programs write to stderr for days.
        self._stderr_end = b""
        self._stderr_reader = Thread(target=self._read_stderr, daemon=True)
        self._stderr_reader.start()

    def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        fd = self._process.stderr.fileno()
        with suppress(OSError, ValueError):
            while data := os.read(fd, _STDERR_BYTES):
                self._stderr_end = (self._stderr_end + data)[-_STDERR_BYTES:]

    def failure(self) -> str | None:
        """Wait for the exit and return a sentence unless the program succeeded.

        The sentence ends with the program's last line on stderr, without the user
        names and passwords in it. None while the program runs on.
        """
        try:
            status = self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            return None  # it closed its output and runs on
        if status == 0:
            return None
        self._stderr_reader.join(_GRACE_S)
        lines = self._stderr_end.decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        last = hide_credentials(last)
        ending = f"ended with status {status}"
        if status < 0:
            ending = f"was ended by {signal.Signals(-status).name}"
        return f"command '{self.name}' {ending}" + (f": {last}" if last else "")

    def close(self) -> None:
        """End the program and all processes that it started."""
        end_group(self._process, _GRACE_S)
        self._guard.close()
        self._stderr_reader.join(_GRACE_S)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

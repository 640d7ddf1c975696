"""A program whose standard output is audio: started, heard out, ended."""

import os
import shlex
import signal
import subprocess
from contextlib import suppress
from threading import Thread

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.support.text import hide_credentials

_STDERR_BYTES = 4096
_GRACE_S = 1.0


def words(command: str | list[str]) -> list[str]:
    """Program and arguments; a string is split as a shell would, but no shell runs.

    Raises
    ------
    ConfigError
        A quotation mark is left open, or nothing is there.
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
    """A running program.

    It gets a session of its own, so that Ctrl-C reaches the engine alone, which
    then ends it in order, together with all that it started.

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
                start_new_session=True,
            )
        except OSError as error:
            raise ConfigError(
                f"command '{arguments[0]}' cannot be run: {error.strerror}"
            ) from error
        assert self._process.stdout is not None
        self.fd = self._process.stdout.fileno()
        # Only the end of what it says is kept: some programs talk for days.
        self._said = b""
        self._listener = Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        fd = self._process.stderr.fileno()
        with suppress(OSError, ValueError):
            while data := os.read(fd, _STDERR_BYTES):
                self._said = (self._said + data)[-_STDERR_BYTES:]

    def failure(self) -> str | None:
        """Wait for the end after the last byte; a sentence if it was no success.

        Programs like to name the address that they could not reach: what stands in
        it for a user or a password is left out.
        """
        try:
            status = self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            return None  # it closed its output and goes on: that is its business
        if status == 0:
            return None
        self._listener.join(_GRACE_S)
        lines = self._said.decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        last = hide_credentials(last)
        how = f"ended with status {status}"
        if status < 0:
            how = f"was ended by {signal.Signals(-status).name}"
        return f"command '{self.name}' {how}" + (f": {last}" if last else "")

    def close(self) -> None:
        """End it and everything that it started."""
        for how in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, how)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE_S)
                break
        self._listener.join(_GRACE_S)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

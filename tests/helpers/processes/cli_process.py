"""Run the command line in a process of its own."""

import atexit
import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from processes.preloaded import Client
from processes.waiting import PROCESS_S
from repository import ROOT

RECORDING = ROOT / "configs" / "recordings" / "bengalese-finch.flac"
NEUROVOCAL = [sys.executable, "-c", "from neurovocal.engine.cli import main; main()"]


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


def neurovocal(*arguments: object, cwd: Path | None = None, stdin: bytes = b"") -> Done:
    """Run a command to its end; return exit code, stdout and stderr.

    It runs in a process of its own, a fork of one that has loaded the program.
    """
    code, out, err = _loaded().run(
        "neurovocal",
        [str(argument) for argument in arguments],
        cwd or Path.cwd(),
        stdin,
        PROCESS_S,
        dict(os.environ),
    )
    return Done(code, out.decode(), err.decode())


@functools.cache
def _loaded() -> Client:
    folder = tempfile.TemporaryDirectory(prefix="neurovocal-tests-")
    client = Client(Path(folder.name), dict(os.environ))
    atexit.register(folder.cleanup)
    atexit.register(client.close)
    return client


@contextmanager
def running(
    *arguments: object, cwd: Path | None = None, start_new_session: bool = False
) -> Iterator[subprocess.Popen]:
    """Start a command with pipes as its streams; kill it at the end of the block."""
    process = subprocess.Popen(
        [*NEUROVOCAL, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        text=True,
        start_new_session=start_new_session,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()

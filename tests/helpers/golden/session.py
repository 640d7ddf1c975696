"""Runs the program for the recording, each command in a folder of its own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from processes.preloaded import Client

from golden.masking import Masker

ROOT = next(
    p for p in Path(__file__).resolve().parents if (p / "pyproject.toml").is_file()
)
_TIMEOUT_S = 300.0
_MOST_LINES = 40
# Settings of the caller that must not change what the program says.
_DROPPED = ("PYTHONWARNINGS", "FORCE_COLOR", "TTY_COMPATIBLE", "PYTEST_CURRENT_TEST")


@dataclass(frozen=True)
class Entry:
    """A recorded text: one section of a file."""

    topic: str
    name: str
    text: str


@dataclass(frozen=True)
class Result:
    """What a command has said, and its exit code."""

    arguments: tuple[str, ...]
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Case:
    """A command that is recorded.

    Parameters
    ----------
    name : str
        Name of the section.
    arguments : tuple of str
        Arguments of the program; `INPUTS/` stands for the folder of inputs.
    files : dict
        Files that are written into the command's folder first: name and content.
    prepare : callable, optional
        Prepares the command's folder in any other way.
    stdin : str
        What the command reads.
    shown : tuple of str
        Files that are recorded, too.
    """

    name: str
    arguments: tuple[str, ...]
    files: dict[str, str | bytes] = field(default_factory=dict)
    prepare: Callable[[Path], None] | None = None
    stdin: str = ""
    shown: tuple[str, ...] = ()


class Session:
    """The folders, the program and the masks of one recording.

    Parameters
    ----------
    folder : Path
        An empty folder for everything that is written.
    exact : bool
        Whether full precision is recorded.
    jobs : int
        How many commands run at a time where their order does not matter.
    preloaded : bool
        Whether commands run in forks of a process that has loaded the program, which
        takes a third of the time.
    """

    def __init__(
        self,
        folder: Path,
        *,
        exact: bool = False,
        jobs: int = 2,
        preloaded: bool = False,
    ) -> None:
        self.folder = folder.resolve()
        self.exact = exact
        self.jobs = jobs
        self.inputs = self.folder / "inputs"
        self.inputs.mkdir(parents=True, exist_ok=True)
        places = {self.inputs: "INPUTS", self.folder: "WORK"}
        self.masker = Masker(places, exact=exact)
        self.took_s: dict[str, float] = {}
        self._environment = _environment(self.folder)
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            # Started in the background of a shell: commands would ignore it, too.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self._client: Client | None = None
        if preloaded:
            (self.folder / "c").mkdir()
            self._client = Client(self.folder / "c", self._environment)

    def close(self) -> None:
        """End what was started for the whole recording."""
        if self._client is not None:
            self._client.close()

    @property
    def recording(self) -> Path:
        """The recording that ships."""
        return shipped_configs() / "recordings" / "bengalese-finch.flac"

    def filled(self, text: str) -> str:
        """Put the folder of inputs in place of its name."""
        return text.replace("INPUTS/", f"{self.inputs}/")

    def place(self, name: str) -> Path:
        """Make an empty folder."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def free_port(self) -> int:
        """Find a free port of this machine, and mask it from now on."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        self.masker.add_port(port)
        return port

    def run(
        self,
        *arguments: str,
        cwd: Path,
        stdin: bytes = b"",
        timeout_s: float = _TIMEOUT_S,
    ) -> Result:
        """Run a command to its end."""
        filled = [self.filled(argument) for argument in arguments]
        if self._client is not None:
            code, out, err = self._client.run(_program(), filled, cwd, stdin, timeout_s)
        else:
            done = subprocess.run(
                [_program(), *filled],
                input=stdin,
                capture_output=True,
                cwd=cwd,
                env=self._environment,
                timeout=timeout_s,
                check=False,
            )
            code, out, err = done.returncode, done.stdout, done.stderr
        return Result(
            arguments,
            code,
            out.decode(errors="backslashreplace"),
            err.decode(errors="backslashreplace"),
        )

    @contextmanager
    def started(
        self, *arguments: str, cwd: Path
    ) -> Iterator["subprocess.Popen[bytes]"]:
        """Start a command; it is killed when the block ends, if it still runs.

        Its output goes to the files `stdout` and `stderr` of its folder.
        """
        with open(cwd / "stdout", "wb") as out, open(cwd / "stderr", "wb") as err:
            process = subprocess.Popen(
                [_program(), *map(self.filled, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=cwd,
                env=self._environment,
            )
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait()

    def text_of(
        self, result: Result, *, loose: bool = True, shorten: bool = False
    ) -> str:
        """Write a result as masked text."""
        command = self.masker.mask(" ".join(("neurovocal", *result.arguments)))
        parts = [f"$ {command}", f"exit code {result.code}"]
        for name, text in (("stdout", result.out), ("stderr", result.err)):
            if text:
                shown = self.masker.mask(text)
                shown = self.masker.loose(shown) if loose else shown
                lines = shown.split("\n")
                parts += [f"-- {name}", *(self.shortened(lines) if shorten else lines)]
        return "\n".join(parts)

    def shortened(self, lines: list[str]) -> list[str]:
        """Leave out the middle of many lines, but say how many they were."""
        if self.exact or len(lines) <= _MOST_LINES:
            return lines
        half = _MOST_LINES // 2
        left_out = f"... {len(lines) - 2 * half} lines ..."
        return [*lines[:half], left_out, *lines[-half:]]

    def record(
        self,
        topic: str,
        cases: Iterable[Case],
        *,
        finish: Callable[[str], str] = lambda text: text,
        loose: bool = True,
        shorten: bool = False,
    ) -> Iterator[Entry]:
        """Run cases, several at a time, and give their texts in order.

        `finish` changes each text at last; `loose` marks numbers that may differ;
        `shorten` leaves out the middle of long output.
        """
        from golden.files import describe

        def one(case: Case) -> Entry:
            folder = self.place(f"{topic}/{case.name}")
            for name, content in case.files.items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(content, str):
                    path.write_text(self.filled(content), encoding="utf-8")
                else:
                    path.write_bytes(content)
            if case.prepare is not None:
                case.prepare(folder)
            start_s = time.monotonic()
            result = self.run(*case.arguments, cwd=folder, stdin=case.stdin.encode())
            self.took_s[f"{topic}: {case.name}"] = time.monotonic() - start_s
            parts = [finish(self.text_of(result, loose=loose, shorten=shorten))]
            for name in case.shown:
                path = folder / name
                text = describe(self, path) if path.exists() else "absent"
                parts.append(f"-- file {name}\n{text}")
            return Entry(topic, case.name, "\n".join(parts))

        with ThreadPoolExecutor(self.jobs) as pool:
            yield from pool.map(one, cases)


def shipped_configs() -> Path:
    """Find the folder of the configurations that ship."""
    found = ROOT / "configs"
    if (found / "recordings").is_dir():
        return found
    (recordings,) = [
        p
        for p in ROOT.rglob("recordings/bengalese-finch.flac")
        if ".venv" not in str(p)
    ]
    return recordings.parent.parent


def _program() -> str:
    beside = Path(sys.executable).parent / "neurovocal"
    found = str(beside) if beside.exists() else shutil.which("neurovocal")
    if found is None:
        raise FileNotFoundError(f"no program 'neurovocal' beside {sys.executable}")
    return found


def _environment(folder: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in _DROPPED}
    pictures = os.environ.get(
        "MPLCONFIGDIR", str(Path.home() / ".config" / "matplotlib")
    )
    return {
        **kept,
        "COLUMNS": "80",
        "LINES": "24",
        "NO_COLOR": "1",
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "HOME": str(folder / "home"),
        "MPLCONFIGDIR": pictures,
        "PYTHONUNBUFFERED": "1",
    }

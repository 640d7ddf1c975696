"""Run the code blocks of a page, and write what the commands print into it.

``python tools/docs/blocks.py docs/tutorials/explore.md`` runs the page's blocks one
after another in a new folder and replaces the outputs that the page shows. The tests
run the same blocks and compare. A block of shell, Python or YAML needs no mark; a
comment before it, on a line of its own, says what is different:

``<!-- file: my.yaml -->``       the block is the content of this file
``<!-- not run: microphone -->`` it cannot run here, for one of `REASONS`
``<!-- long -->``                it takes minutes: run by ``make test-long``
``<!-- beside: COMMAND -->``     run while COMMAND runs
``<!-- until: TEXT -->``         ended by Ctrl-C as soon as it has printed TEXT
``<!-- exit: 1 -->``             the exit code may be this one, as well as 0
``<!-- given: song.wav -->``     what the page begins with (`_give`), anywhere
``<!-- default ports -->``       ports are those of the page, anywhere; else free ones

A ``console`` block has commands after ``$ `` and what they print. A line ``...`` in it
stands for any lines.
"""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import soundfile

ROOT = Path(__file__).resolve().parents[2]
REASONS = {
    "a microphone",
    "a broker",
    "a browser",
    "a person",
    "a second machine",
    "administrator rights",
    "annotated data sets",
    "docker",
    "hours",
    "names of your own",
    "systemd",
    "the network",
    "the whole test suite",
}
# `text` is what people read; the others are parsed or run.
LANGUAGES = {"sh", "console", "python", "yaml", "json", "text", "csv", "mermaid"} | {
    *("nginx", "dockerfile", "ini", "promql", "javascript", "toml")
}
PORTS = ("5556", "5557", "5558", "8420", "8421", "8422", "9308")
RECORDINGS = ROOT / "configs" / "recordings"
SONG = RECORDINGS / "bengalese-finch.flac"
STEERED = """version: 1
station: steered
source: {plugin: playback, options: {path: song.wav, repeat: 0}}
bundle: bengalese-finch
models: [{plugin: classifier}, {plugin: rnn_rbm}]
control: {plugin: zmq, options: {endpoint: "tcp://127.0.0.1:5557"}}
sinks: [{plugin: zmq, options: {endpoint: "tcp://127.0.0.1:5556"}}]
"""
MINE = """version: 1
station: mine
source: {plugin: file, options: {path: song.wav, start_utc: "2026-05-01T04:00:00Z"}}
bundle: bengalese-finch
models: [{plugin: classifier}]
sinks: [{plugin: journal, options: {path: aviary.sqlite}}]
"""
_FENCE = re.compile(
    r"(?P<marks>(?:^[ ]*<!--[^>]*-->\n+)*)"
    r"^(?P<indent>[ ]*)(?P<fence>```+)(?P<language>[^\n]*)\n"
    r"(?P<body>.*?)^[ ]*(?P=fence)[ ]*$",
    re.S | re.M,
)
_MARK = re.compile(r"<!--\s*([\w ]+?)\s*(?::\s*(.*?))?\s*-->")


@dataclass
class Block:
    """A code block of a page.

    Attributes
    ----------
    line : int
        Of its fence, from 1.
    language : str
        What stands behind the fence.
    body : str
        The text, without indentation.
    marks : dict of str to str
        The comments before it.
    span : tuple of int
        Where the body lies in the page's text.
    """

    line: int
    language: str
    body: str
    marks: dict[str, str]
    span: tuple[int, int]

    @property
    def commands(self) -> str:
        """The commands of a shell block, without the outputs of a console block."""
        if self.language != "console":
            return self.body
        return "\n".join(command for command, _ in self.steps())

    @property
    def runs(self) -> bool:
        """Whether the block is run, or written to a file, at all."""
        if "not run" in self.marks:
            return False
        return "file" in self.marks or self.language in ("sh", "console", "python")

    def steps(self) -> Iterator[tuple[str, list[str]]]:
        """Yield each command of a console block with the lines that it prints."""
        command, lines = "", list[str]()
        for line in self.body.splitlines():
            if line.startswith("$ "):
                if command:
                    yield command, lines
                command, lines = line[2:], []
            elif line.startswith("> ") and not lines:
                command += "\n" + line[2:]
            else:
                lines.append(line)
        if command:
            yield command, lines


def blocks_of(text: str) -> list[Block]:
    """Return the code blocks of a page, in their order."""
    found = []
    for match in _FENCE.finditer(text):
        indent = match["indent"]
        body = re.sub(f"^{indent}", "", match["body"], flags=re.M)
        marks = {name: value or "" for name, value in _MARK.findall(match["marks"])}
        line = text.count("\n", 0, match.start("fence")) + 1
        language = match["language"].split()[0] if match["language"].split() else ""
        found.append(Block(line, language, body, marks, match.span("body")))
    return found


def given(text: str) -> list[str]:
    """Return the names of the files that a page begins with."""
    names = re.findall(r"<!-- given: ([^>]*?) -->", text)
    return [each.strip() for group in names for each in group.split(",")]


class Session:
    """A folder in which the blocks of one page run, one after another.

    Parameters
    ----------
    folder : Path
        An empty folder.
    page : Path
        The page.
    """

    def __init__(self, folder: Path, page: Path) -> None:
        self.page = page
        self.text = page.read_text(encoding="utf-8")
        self.folder = folder
        self.allowed = {0}
        self.ports = {} if "<!-- default ports -->" in self.text else free_ports()
        programs = Path(sys.executable).parent
        self.environment = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "COLUMNS": "80",
            "OMP_NUM_THREADS": "1",
            "NO_COLOR": "1",
        }

        for name in given(self.text):
            self._give(name)

    def _give(self, name: str) -> None:
        """Put what the page begins with into the folder."""
        if name == "checkout":
            for each in ("configs", "examples", "models"):
                (self.folder / each).symlink_to(ROOT / each)
        elif name == "songs":
            shutil.copytree(RECORDINGS, self.folder / name)
        elif name == "aviary.sqlite":
            self._give("my.yaml")
            self._shell("neurovocal run my.yaml")
        elif name == "demo":
            self._shell("neurovocal demo --files .")
        elif name == "my.yaml":
            self._give("song.wav")
            (self.folder / name).write_text(MINE, encoding="utf-8")
        elif name == "song.wav":
            samples, rate = soundfile.read(SONG, frames=6 * 32000)
            soundfile.write(self.folder / name, samples, rate)
            steered = self._with_ports(STEERED)
            for config in ("steered.yaml", "other.yaml"):
                (self.folder / config).write_text(steered, encoding="utf-8")
        else:
            shutil.copy(SONG, self.folder / name)

    def run(self, block: Block) -> list[str]:
        """Run one block; return what its commands printed, command by command.

        Raises
        ------
        AssertionError
            A command failed, or printed something else than the page shows.
        """
        if "file" in block.marks:
            path = self.folder / block.marks["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self._with_ports(block.body), encoding="utf-8")
            if block.language == "yaml" and "source:" in block.body:
                self._shell(f"neurovocal check {shlex.quote(block.marks['file'])}")
            return []
        beside = block.marks.get("beside")
        if beside is None:
            return self._run(block)
        with subprocess.Popen(
            ["bash", "-c", f"exec {self._with_ports(beside)}"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                self._wait_until_it_labels(process)
                return self._run(block)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGINT)
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)

    def _wait_until_it_labels(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if re.search(r"\d\.\d{3} s  ", line):  # the first label: all is running
                break
        else:
            raise AssertionError(f"{process.args}: " + "".join(lines))
        # It goes on printing: a full pipe would stop it.
        threading.Thread(target=process.stdout.read, daemon=True).start()

    def _run(self, block: Block) -> list[str]:
        until = block.marks.get("until")
        self.allowed = {0, int(block.marks.get("exit", "0"))}
        if block.language == "python":
            code = self._with_ports(block.body)
            (self.folder / "block.py").write_text(code, encoding="utf-8")
            return [self._shell("python block.py", until)]
        if block.language == "console":
            return [self._shell(command, until) for command, _ in block.steps()]
        return [self._shell(block.body, until)]

    def _shell(self, command: str, until: str | None = None) -> str:
        process = subprocess.Popen(
            ["bash", "-eo", "pipefail", "-c", self._with_ports(command)],
            cwd=self.folder,
            env={**self.environment, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        lines, stopped = [], False
        for line in process.stdout:
            lines.append(line.rstrip())
            if until is not None and until in line and not stopped:
                os.killpg(process.pid, signal.SIGINT)
                stopped = True
        code = process.wait()
        if code == 128 + signal.SIGPIPE and "| head" in command:
            code = 0  # `head` had its lines before the program had written all
        process.stdout.close()
        output = "\n".join(lines)
        assert stopped or code in self.allowed, (
            f"{self.page}: {command}\n{output}\n(exit {code})"
        )
        assert stopped or until is None, (
            f"{until!r} was not printed by {command}\n{output}"
        )
        for shown, used in self.ports.items():
            output = output.replace(used, shown)
        return output.replace(str(self.folder), "/home/you").strip("\n")

    def _with_ports(self, text: str) -> str:
        for shown, used in self.ports.items():
            text = re.sub(rf"\b{shown}\b", used, text)
        return text


def free_ports() -> dict[str, str]:
    """Return a free port for each one that the pages name."""
    sockets = {each: socket.socket() for each in PORTS}
    for each in sockets.values():
        each.bind(("127.0.0.1", 0))
    found = {name: str(each.getsockname()[1]) for name, each in sockets.items()}
    for each in sockets.values():
        each.close()
    return found


def differences(block: Block, outputs: list[str]) -> Iterator[str]:
    """Yield how the outputs of a console block differ from what the page shows.

    Numbers may differ: times, dates and figures of a busy machine are none that a test
    could hold.
    """
    if block.language != "console":
        return
    for (command, shown), output in zip(block.steps(), outputs, strict=True):
        if not pattern_of(shown).fullmatch(output + "\n"):
            yield f"$ {command}\n{output}\n--- the page shows\n" + "\n".join(shown)


def pattern_of(shown: list[str]) -> re.Pattern[str]:
    """Return what matches the lines shown: any number for each, any lines for `...`."""
    parts = []
    for line in shown:
        if line.strip() == "...":
            parts.append(r"(?:.*\n)*?")
        else:
            text = re.escape(line.rstrip())
            text = re.sub(r"(?:\\ )+", r"[ ]+", text)
            text = re.sub(r"\d+(?:(?:\\\.|,)\d+)*", lambda _: r"[\d.,]+", text)
            parts.append(text + r"\s*?\n")
    whole = "".join(parts)
    return re.compile(whole or r"\s*")


def write(page: Path) -> None:
    """Run a page and write the outputs into it; a `...` keeps the lines around it."""
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Path(folder), page)
        changes = []
        for block in blocks_of(session.text):
            if not block.runs:
                continue
            began = time.monotonic()
            outputs = session.run(block)
            print(f"{page}:{block.line}: {time.monotonic() - began:.1f} s")
            if block.language != "console":
                print("\n".join(outputs))
                continue
            lines = []
            for (command, shown), output in zip(block.steps(), outputs, strict=True):
                lines.append("$ " + command.replace("\n", "\n> "))
                if "..." in shown and pattern_of(shown).fullmatch(output + "\n"):
                    lines += shown
                else:
                    lines += shortened(output.splitlines())
            changes.append((block.span, "".join(f"{line}\n" for line in lines)))
        text = session.text
        for (start, stop), body in reversed(changes):
            text = text[:start] + body + text[stop:]
        page.write_text(text, encoding="utf-8")


def shortened(lines: list[str]) -> list[str]:
    """Return the first and last lines of a long output."""
    return lines if len(lines) <= 16 else [*lines[:6], "...", *lines[-4:]]


if __name__ == "__main__":
    for name in sys.argv[1:]:
        write(Path(name))

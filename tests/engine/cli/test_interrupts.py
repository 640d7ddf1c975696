"""Ctrl-C and SIGTERM anywhere: one sentence, exit code 3, no traceback."""

import signal
import subprocess
import sys

import pytest
from processes.waiting import PROCESS_S
from repository import ROOT

SONG = ROOT / "configs" / "recordings" / "bengalese-finch.flac"
# Sends itself a signal when a module is asked for, as often as it is told.
PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from neurovocal.engine.cli import main
module, number, times = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
class Interrupting:
    left = times
    def find_spec(self, name, path=None, target=None):
        while name == module and self.left:
            self.left -= 1
            signal.raise_signal(number)
sys.meta_path.insert(0, Interrupting())
del sys.argv[1:4]
main()
"""


def interrupted(module, *command, number=signal.SIGINT, times=1, cwd=None):
    """Run a command that is interrupted while it loads a module."""
    arguments = [module, str(int(number)), str(times), *map(str, command)]
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=PROCESS_S,
        cwd=cwd,
        check=False,
    )


@pytest.mark.parametrize(
    ("module", "number", "command"),
    [
        ("neurovocal.engine.cli.app", signal.SIGINT, ["check", "demo"]),
        ("neurovocal.plugins.models.onnx.session", signal.SIGTERM, ["run", "demo"]),
        ("soundfile", signal.SIGINT, ["detect", SONG, "--out", "t.csv"]),
        ("soundfile", signal.SIGTERM, ["label", SONG, "--out", "t.csv"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else str(value),
)
def test_a_signal_while_modules_are_loaded_is_one_sentence(
    tmp_path, module, number, command
):
    done = interrupted(module, *command, number=number, cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("stopped")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", ["typer", "soundfile"])
def test_two_signals_in_a_row_are_one_sentence(tmp_path, module):
    done = interrupted(module, "label", SONG, "--out", "t.csv", times=2, cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("stopped")
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_a_signal_that_is_lost_in_a_finalizer_ends_the_program():
    program = """
import signal
from neurovocal.engine.cli import interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)
interrupts.install()
interrupts.begin_work()
class Lost:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
Lost()
print("goes on")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "stopped\n")


def test_the_sentence_is_told_while_libraries_are_muted():
    """As they are while a sound card is open."""
    program = """
import signal
from neurovocal.engine.cli import interrupts
from neurovocal.engine.support.process import keep_stderr, mute_libraries
signal.signal(signal.SIGINT, signal.default_int_handler)
interrupts.install()
keep_stderr()
with mute_libraries():
    signal.raise_signal(signal.SIGINT)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (3, "stopped\n")


def test_a_signal_after_the_end_of_a_command_does_not_change_its_exit_code():
    program = """
import signal, sys
from neurovocal.engine.cli import interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)
interrupts.install()
interrupts.begin_work()
interrupts.end_work(2)
signal.raise_signal(signal.SIGINT)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (2, "")


def test_a_signal_while_the_interpreter_shuts_down_does_not_kill_the_process():
    """Python gives signals their default action before it unloads modules."""
    program = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
class Last:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
last = Last()
from neurovocal.engine.cli import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program, "--version"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


# Forks a process per line that runs after the command's function was entered, and
# sends it a signal before that line; prints how each has ended.
EVERY_LINE = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from neurovocal.engine.cli import app, interrupts
from neurovocal.engine.cli.commands import inspect

def run_with_signal_at(wanted):
    interrupts.install()
    seen = [0]
    def trace(frame, event, argument):
        if frame.f_code.co_filename not in (app.__file__, interrupts.__file__):
            return None
        return on_line
    def on_line(frame, event, argument):
        if event == "line":
            seen[0] += 1
            if seen[0] == wanted + 1:
                sys.settrace(None)
                signal.raise_signal(signal.SIGINT)
        return on_line
    def command():
        frame = sys._getframe()
        while frame is not None:
            if frame.f_code.co_filename == app.__file__:
                frame.f_trace = on_line
            frame = frame.f_back
        sys.settrace(trace)
        raise app.typer.Exit(0)
    inspect.plugins = command
    try:
        app.main()
    finally:
        sys.settrace(None)
        if seen[0] <= wanted:
            os._exit(77)

sys.argv = ["neurovocal", "plugins"]
for wanted in range(1000):
    sys.stdout.flush()
    child = os.fork()
    if not child:
        code = 99
        try:
            run_with_signal_at(wanted)
        except SystemExit as error:
            code = error.code
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 77:
        break
    print(code)
"""


def test_a_signal_at_any_line_after_a_command_is_code_3_or_that_of_the_command():
    done = subprocess.run(
        [sys.executable, "-c", EVERY_LINE], capture_output=True, text=True, check=False
    )
    codes = [int(line) for line in done.stdout.splitlines()]
    assert len(codes) > 10, done.stderr
    assert set(codes) == {3, 0}
    assert set(done.stderr.splitlines()) == {"stopped"}

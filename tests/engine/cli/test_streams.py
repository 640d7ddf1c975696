"""Standard streams that are closed or on a full disk end in a sentence and a code."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from processes.cli_process import NEUROVOCAL, RECORDING
from processes.waiting import PROCESS_S


def shell(arguments: str, redirections: str, cwd: Path) -> tuple[int, str]:
    """Run a command with redirections; return its exit code and stderr."""
    line = f"{shlex.join(NEUROVOCAL)} {arguments} {redirections}"
    done = subprocess.run(
        ["sh", "-c", line], capture_output=True, cwd=cwd, timeout=PROCESS_S, check=False
    )
    return done.returncode, done.stderr.decode()


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_stderr_that_takes_nothing_costs_no_work(
    tmp_path: Path, redirection: str
) -> None:
    arguments = f"detect {RECORDING} --out t.csv"
    code, _ = shell(arguments, redirection, tmp_path)
    assert code == 0
    table = (tmp_path / "t.csv").read_text()
    assert table.startswith("file,onset_s,offset_s,score\n")
    assert "wrote" not in table  # what is meant for people went nowhere
    code, _ = shell("detect none.wav", redirection, tmp_path)
    assert code == 1


@pytest.mark.parametrize("arguments", ["--version", "plugins", f"detect {RECORDING}"])
@pytest.mark.parametrize(
    ("redirection", "reason"),
    [(">&-", "bad file descriptor"), (">/dev/full", "no space left on device")],
)
def test_stdout_that_takes_nothing_is_one_sentence(
    tmp_path: Path, arguments: str, redirection: str, reason: str
) -> None:
    code, told = shell(arguments, redirection, tmp_path)
    assert code == 2
    (sentence,) = [line for line in told.splitlines() if line.startswith("error: ")]
    assert reason in sentence.lower()
    assert "Traceback" not in told


def test_all_streams_may_be_closed(tmp_path: Path) -> None:
    arguments = f"detect {RECORDING} --out t.csv"
    code, _ = shell(arguments, "<&- >&- 2>&-", tmp_path)
    assert code == 0
    assert len((tmp_path / "t.csv").read_text().splitlines()) > 1


def test_a_working_folder_that_was_deleted_is_one_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    command = [sys.executable, "-c", DELETE_AND_DETECT]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: the working folder was deleted: change into one that exists\n"
    )


DELETE_AND_DETECT = """
import os
from neurovocal.engine.cli import main
os.rmdir(os.getcwd())
main(["detect", "a.wav"])
"""

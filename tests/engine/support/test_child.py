"""Processes that must not outlive the one that started them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from processes.waiting import until

PROGRAM = """
import subprocess, sys, time
from neurovocal.engine.support.child import OrphanGuard
child = subprocess.Popen(
    ["/bin/sh", "-c", "sleep 600 & echo $!; wait"],
    stdout=subprocess.PIPE, start_new_session=True,
)
guard = OrphanGuard(child.pid)
print(child.pid, child.stdout.readline().decode(), flush=True)
{then}
"""


def is_alive(pid: int) -> bool:
    """Return True while a process runs; one that was not waited for has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def start(then: str) -> tuple["subprocess.Popen[str]", list[int]]:
    parent = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(then=then)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    return parent, [int(pid) for pid in parent.stdout.readline().split()]


def test_a_killed_process_takes_its_guarded_group_along() -> None:
    parent, pids = start("time.sleep(600)")
    assert all(map(is_alive, pids))
    with parent:
        os.kill(parent.pid, signal.SIGKILL)
    until(lambda: not any(map(is_alive, pids)))


def test_a_closed_guard_ends_nothing() -> None:
    parent, pids = start("guard.close(); guard.close()")
    parent.communicate()
    assert parent.returncode == 0
    assert all(map(is_alive, pids))
    os.killpg(pids[0], signal.SIGKILL)

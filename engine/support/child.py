"""Processes that end with this one, however it ends (on Windows: in order)."""

import subprocess
from contextlib import suppress

from neurovocal.engine.support.platform import IS_WINDOWS

# A shell that waits until its standard input is closed, which the kernel does when this
# process ends, also by SIGKILL. Unlike PR_SET_PDEATHSIG it does not depend on the
# thread that started the process, and reaches what the process has started.
_SCRIPT = 'exec 2>/dev/null; read -r _; kill -TERM "-$1"; sleep 1; kill -KILL "-$1"'


class OrphanGuard:
    """Ends a process group when this process ends without having closed the guard.

    Parameters
    ----------
    group : int
        Process group, which must not be the one of this process.
    """

    def __init__(self, group: int) -> None:
        self._shell = None
        if IS_WINDOWS:
            return
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT, "neurovocal-guard", str(group)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def close(self) -> None:
        """End the guard, before the group's leader is waited for."""
        if self._shell is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            self._shell.kill()
        self._shell.wait()
        if self._shell.stdin is not None:
            self._shell.stdin.close()

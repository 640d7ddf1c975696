"""The thread that takes commands from outside; what goes wrong there ends no run."""

import logging
from collections.abc import Callable
from threading import Event as Flag
from threading import Thread
from typing import Any

from neurovocal.engine.contracts.stages import ControlChannel

log = logging.getLogger("neurovocal")

_LOOK_S = 0.1
_PAUSE_S = 0.5


class ControlWorker:
    """Shell of a control.

    Parameters
    ----------
    name : str
        Name in logs.
    control : Control
        Not yet open.
    submit : callable
        Takes a request and returns its reply.
    """

    def __init__(
        self,
        name: str,
        control: ControlChannel,
        submit: Callable[[object], dict[str, Any]],
    ) -> None:
        self._name = name
        self._control = control
        self._submit = submit
        self._stopping = Flag()
        self._thread = Thread(target=self._run, name=f"nv-{name}", daemon=True)

    def open(self) -> None:
        """Open the control; nothing is answered yet."""
        self._control.open()

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self, timeout: float) -> None:
        """Answer no more and close; a request that is being dealt with gets its reply.

        Parameters
        ----------
        timeout : float
            Seconds to wait for that.
        """
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        if self._thread.is_alive():
            log.error("%s did not finish in time and was left behind", self._name)
            return
        try:
            self._control.close()
        except Exception:
            log.exception("%s failed while closing", self._name)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._control.serve(self._submit, _LOOK_S)
            except Exception as error:
                log.error("%s failed and goes on: %r", self._name, error)
                self._stopping.wait(_PAUSE_S)

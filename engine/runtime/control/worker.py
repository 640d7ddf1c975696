"""Control worker: the thread of a control; its failures end no run."""

import logging
from collections.abc import Callable
from threading import Event as Flag
from threading import Thread
from typing import Any

from neurovocal.engine.contracts.stages import ControlChannel
from neurovocal.engine.support.calls import Calls

log = logging.getLogger("neurovocal")

_SERVE_S = 0.1
_PAUSE_S = 0.5


class ControlWorker:
    """Thread that serves the requests of a control.

    Parameters
    ----------
    name : str
        Name in logs.
    control : Control
        Not yet open.
    submit : callable
        Takes a request and returns its reply.

    Attributes
    ----------
    calls : Calls
        Calls into the control.
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
        self.calls = Calls()
        self._stopping = Flag()
        self._thread = Thread(target=self._run, name=f"nv-{name}", daemon=True)

    def open(self) -> None:
        """Open the control; requests are served after `start`."""
        self._control.open()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self, timeout: float) -> None:
        """Stop the thread and close the control; a request in work gets its reply.

        Parameters
        ----------
        timeout : float
            Seconds to wait for the thread.
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
                with self.calls:
                    self._control.serve(self._submit, _SERVE_S)
            except Exception as error:
                log.error("%s failed and goes on: %r", self._name, error)
                self._stopping.wait(_PAUSE_S)

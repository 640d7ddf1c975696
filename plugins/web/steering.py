"""Commands of the page: passed on to the control socket of an engine."""

from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from neurovocal.engine import NeurovocalError
from neurovocal.engine.contracts.errors import CommandError
from neurovocal.engine.support.endpoints import endpoint_problem

if TYPE_CHECKING:
    from neurovocal.engine.client.control import Control

# A swap is answered when the new lanes are built.
_REPLY_S = 60.0


class EngineControl:
    """Connection to the control socket of one engine, made with the first command.

    Commands of several browsers are sent one after the other.

    Parameters
    ----------
    endpoint : str
        Control socket, such as ``tcp://127.0.0.1:5557``.
    keys : Path, optional
        Folder made by ``neurovocal keys add --control``, for an engine with keys.
    """

    def __init__(self, endpoint: str, keys: Path | None = None) -> None:
        self._endpoint = endpoint
        self._keys = keys
        self._control: Control | None = None
        self._lock = Lock()

    def command(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        lane: str | None = None,
        model: str | int | None = None,
    ) -> dict[str, Any]:
        """Send a command and return the reply.

        Raises
        ------
        NeurovocalError
            The engine refuses it, or does not answer.
        """
        with self._lock:
            control = self._connected()
            try:
                return control.command(command, arguments, lane=lane, model=model)
            except CommandError:
                raise
            except NeurovocalError:
                self._close()  # a late reply must not answer the next command
                raise

    def close(self) -> None:
        """Disconnect. May be called twice."""
        with self._lock:
            self._close()

    def _connected(self) -> "Control":
        if self._control is None:
            from neurovocal.engine.client.control import Control

            control = Control(self._endpoint, timeout=_REPLY_S, keys=self._keys)
            control.open()
            self._control = control
        return self._control

    def _close(self) -> None:
        control, self._control = self._control, None
        if control is not None:
            control.close()


def control_problems(endpoint: str | None, keys: Path | None) -> Iterator[str]:
    """Yield a sentence per mistake in the endpoint and keys of a control socket."""
    if endpoint is None:
        if keys is not None:
            yield "keys of a control socket, but no 'control': name its endpoint"
        return
    problem = endpoint_problem(endpoint, binds=False, example="tcp://127.0.0.1:5557")
    if problem is not None:
        yield problem
    if keys is not None and not keys.is_dir():
        yield f"folder '{keys}' does not exist: make it by 'neurovocal keys add'"

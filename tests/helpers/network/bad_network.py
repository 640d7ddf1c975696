"""TCP proxy between real sockets that can be cut and paused."""

from types import TracebackType
from typing import Self

from neurovocal.engine.faults.network import TcpProxy, free_port


class BadNetwork(TcpProxy):
    """Forwards a free port of this machine to another.

    Parameters
    ----------
    target : int
        Port to forward to.

    Attributes
    ----------
    endpoint : str
        Where to connect.
    cuts : int
        How often all connections were broken.
    """

    def __init__(self, target: int) -> None:
        port = free_port()
        super().__init__("127.0.0.1", port, target)
        self.endpoint = f"tcp://127.0.0.1:{port}"
        self.cuts = 0
        self.open()

    def cut(self) -> None:
        """Break all connections; new ones are accepted at once."""
        super().cut()
        self.restore()
        self.cuts += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cut()
        self.close()

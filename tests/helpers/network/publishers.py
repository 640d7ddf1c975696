"""ZeroMQ sink and journal of a run, without the run."""

import socket
from pathlib import Path

from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import Label, Message, StreamInfo
from neurovocal.plugins.sinks import journal as sink_journal
from neurovocal.plugins.sinks import zmq as sink_zmq

INFO = StreamInfo("aviary 3/été", 32000)


def has_ipv6() -> bool:
    """Return True if a socket can be bound at [::1]."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


class Engine:
    """ZeroMQ sink and journal that publish and record labels."""

    def __init__(
        self,
        folder: Path,
        run: str = "run0",
        stream: str = INFO.stream,
        keys: Path | None = None,
        queue_length: int = 50,
        host: str = "127.0.0.1",
        endpoints: tuple[str, str] | None = None,
        **journal: object,
    ) -> None:
        live, replay = endpoints or (f"tcp://{host}:*", f"tcp://{host}:*")
        self.info = StreamInfo(stream, INFO.sample_rate)
        options = sink_journal.JournalOptions(
            path=str(folder / "j.sqlite"), replay=replay, **journal
        )
        text = "version: 1\n"
        context = BuildContext(SystemClock(), run, config_text=text, keys=keys)
        self.journal = sink_journal.plugin.build(options, context)
        self.zmq = sink_zmq.plugin.build(
            sink_zmq.ZmqOptions(endpoint=live, queue_length=queue_length, linger_s=0),
            context,
        )
        self.journal.open()
        self.zmq.open()
        self.seq = 0

    @property
    def replay(self) -> str:
        """Endpoint of the replay socket."""
        return self.journal._server.endpoint

    def send(self, number: int = 1, *, only_record: bool = False) -> None:
        """Record `number` labels, and publish them unless `only_record`."""
        for _ in range(number):
            event = Label(self.seq, self.seq, self.seq + 9, "é", 0.5, "final", "m")
            message = Message(
                self.info, event, self.seq, self.seq + 20, 10**18 + self.seq
            )
            self.journal.write(message)
            if not only_record:
                self.zmq.write(message)
            self.seq += 1
        self.journal.flush(1.0)

    def close(self) -> None:
        self.zmq.close()
        self.journal.close()

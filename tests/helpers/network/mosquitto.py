"""Mosquitto, a real MQTT broker, and a subscriber that misses nothing."""

import json
import shutil
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion
from processes.waiting import until

PROGRAM = shutil.which("mosquitto") or "/usr/sbin/mosquitto"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        assert isinstance(port, int)
        return port


class Mosquitto:
    """Broker on loopback that keeps sessions on disk; it can go away and come back.

    Parameters
    ----------
    folder
        Folder for its files.
    settings
        Further lines of its configuration.
    """

    def __init__(self, folder: Path, *settings: str) -> None:
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._config = folder / "mosquitto.conf"
        lines = [
            f"listener {self.port} 127.0.0.1",
            "persistence true",
            f"persistence_location {folder}/",
            # As root it would become a user who may not write here.
            "user root",
            *(settings or ("allow_anonymous true",)),
        ]
        self._config.write_text("\n".join(lines) + "\n")

    def __enter__(self) -> "Mosquitto":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, and return when it listens."""
        command = [PROGRAM, "-c", str(self._config)]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        until(self._listens)

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "the broker has ended"
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5):
            return True
        return False

    def stop(self) -> None:
        """Stop it in order: sessions and retained messages are on disk."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            self._process.wait()
            self._process = None

    def hang(self) -> None:
        """Let it answer nothing from now on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it answer again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


class Subscriber:
    """Subscriber whose session outlives the broker: it gets what it missed meanwhile.

    Attributes
    ----------
    messages : list of (str, bytes)
        Topic and payload of all that came, in order.
    """

    def __init__(
        self,
        broker: Mosquitto,
        topic: str = "#",
        user: str | None = None,
        password: str | None = None,
    ) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self._is_ready = False
        client = Client(
            CallbackAPIVersion.VERSION2, f"test {topic}", clean_session=False
        )
        client.username_pw_set(user, password)
        client.on_connect = lambda *arguments: client.subscribe(topic, 1)
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        self._client = client
        until(lambda: self._is_ready)

    def _on_subscribe(self, *arguments: object) -> None:
        self._is_ready = True

    def _on_message(self, client: Any, data: Any, message: Any) -> None:
        received = (message.topic, bytes(message.payload))
        # A broker that restarts sends again what this client has not acknowledged yet.
        if not (message.dup and received in self.messages):
            self.messages.append(received)

    def __enter__(self) -> "Subscriber":
        return self

    def __exit__(self, *error: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def events(self, kind: str = "label") -> list[dict[str, object]]:
        """Return the JSON of the events of a kind that came."""
        found = [m for m in self.messages if m[0].endswith(f"/{kind}")]
        return [json.loads(payload) for _, payload in found]

    def numbers(self) -> list[object]:
        """Return the numbers of the labels that came."""
        return [event["seq"] for event in self.events()]

    def newest(self, topic: str) -> bytes | None:
        """Return the newest message of a topic."""
        found = [payload for name, payload in self.messages if name == topic]
        return found[-1] if found else None

"""Engines that serve the page: a real `neurovocal run`, or a hub that a test feeds."""

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import yaml
from processes.cli_process import RECORDING, running
from processes.waiting import PATIENCE_S, PROCESS_S, until

from neurovocal.engine.support.endpoints import Address
from neurovocal.plugins.web.access import Access
from neurovocal.plugins.web.encoding import Station
from neurovocal.plugins.web.history import History
from neurovocal.plugins.web.live import Live, StationParts
from neurovocal.plugins.web.server import PageServer
from neurovocal.plugins.web.viewers import Hub


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class PagedRun:
    """Configuration of a run with a page and a journal, which can be started again.

    Parameters
    ----------
    folder : Path
        Where configuration and journal are written.
    source : dict, optional
        Section of the configuration; by default the shipped recording, over and over.
    **sections
        Further sections of the configuration.
    """

    def __init__(
        self, folder: Path, source: dict[str, Any] | None = None, **sections: Any
    ) -> None:
        self.port, control = free_port(), f"tcp://127.0.0.1:{free_port()}"
        self.url = f"http://127.0.0.1:{self.port}/"
        self.journal = folder / "run.sqlite"
        web = {
            "endpoint": f"127.0.0.1:{self.port}",
            "journal": str(self.journal),
            "control": control,
        }
        recording = {
            "path": str(RECORDING),
            "pace": "realtime",
            "repeat": 0,
            "streams": "one",
            "start_utc": "2026-05-01T04:00:00Z",
        }
        sections.setdefault("bundle", "bengalese-finch")
        self._config = {
            "version": 1,
            "station": "aviary",
            "source": source or {"plugin": "file", "options": recording},
            "sinks": [
                {"plugin": "web", "options": web | sections.pop("web", {})},
                {"plugin": "journal", "options": {"path": str(self.journal)}},
            ],
            "control": {"plugin": "zmq", "options": {"endpoint": control}},
            **sections,
        }
        self._path = folder / "page.yaml"

    @contextmanager
    def started(self) -> Iterator[subprocess.Popen[str]]:
        """Run it; the page answers when the block begins."""
        self._path.write_text(yaml.safe_dump(self._config))
        with running("run", self._path, "--json", cwd=self._path.parent) as process:
            assert process.stdout is not None
            # A full pipe would stop the engine's display.
            draining = subprocess.Popen(
                ["cat"], stdin=process.stdout, stdout=subprocess.DEVNULL
            )
            try:
                until(lambda: _answers(self.url) or process.poll() is not None)
                assert process.poll() is None, process.stderr and process.stderr.read()
                yield process
            finally:
                process.kill()
                draining.wait()

    def interrupt(self, process: subprocess.Popen[str]) -> None:
        """End a run in order."""
        process.send_signal(signal.SIGINT)
        process.wait(PROCESS_S)

    def events(self, kinds: str, limit: int = 500) -> list[dict[str, Any]]:
        """Return the newest events, newest first, as the page gets them."""
        query = f"api/events?station=s0&kinds={kinds}&limit={limit}"
        with urlopen(self.url + query, timeout=PATIENCE_S) as answer:
            found: list[dict[str, Any]] = json.load(answer)["events"]
            return found


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=PATIENCE_S):
            return True
    except HTTPError:
        return True  # it asks for a token
    except OSError:
        return False


class HubPage:
    """Page of a hub that a test feeds with messages, as an engine would.

    Parameters
    ----------
    names : str
        Names of the stations; their ids are ``s0``, ``s1``, ...
    """

    def __init__(self, *names: str) -> None:
        stations = [
            Station(id=f"s{place}", name=name) for place, name in enumerate(names)
        ]
        self.hub = Hub(stations)
        parts = {one.id: StationParts(History(self.hub, one.id)) for one in stations}
        self._server = PageServer(
            Address("127.0.0.1", 0),
            Access(),
            Live(self.hub, parts).routes(),
            every_s=0.05,
            task=self.hub.flush_columns,
        )
        self._seq: dict[tuple[str, str, str, str], int] = {}

    def __enter__(self) -> "HubPage":
        self._server.start()
        self.url = self._server.url
        return self

    def __exit__(self, *_: object) -> None:
        self.hub.close()
        self._server.stop()

    def send(
        self,
        kind: str,
        sample: int,
        *,
        station: str = "s0",
        stream: str = "pond",
        run: str = "run1",
        at: int | None = None,
        skip: int = 0,
        **own: Any,
    ) -> dict[str, Any]:
        """Send an event and return its header; `skip` messages before it are lost."""
        key = (station, kind, stream, run)
        seq = self._seq.get(key, 0) + skip
        self._seq[key] = seq + 1
        header = {
            "kind": kind,
            "v": 1,
            "stream": stream,
            "seq": seq,
            "sample": sample,
            "at": sample if at is None else at,
            "sample_rate": 1000,
            "run": run,
            "utc_ns": None,
            "latency": None,
            **own,
        }
        text = json.dumps(header)
        self.hub.add_event(station, kind, stream, run, seq, text, sample_rate=1000)
        return header

    def send_label(self, number: int, unit: str = "a", **where: Any) -> None:
        """Send onset, offset and final label of a segment of 60 ms, one a second."""
        onset, offset = 1000 * number, 1000 * number + 60
        self.send("onset", onset, segment=number, score=12.0, at=offset, **where)
        span = {"segment": number, "onset": onset, "at": offset}
        self.send("offset", offset, truncated=False, **span, **where)
        label = {"offset": offset, "unit": unit, "posterior": 0.9, "status": "final"}
        self.send("label", onset, model="m", **label, **span, **where)

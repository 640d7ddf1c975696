"""Take an MQTT broker and a web service away from a live engine, and count labels.

``.venv/bin/python bench/reliability/outputs/away.py`` plays the shipped recording in
real time to an engine with the sinks `journal`, `webhook` and `mqtt`, stops a
mosquitto and an HTTP server after a while, starts both again after a minute, and
compares what they received with the journal: every final label once, in order.
"""

import argparse
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

from network.http_receiver import HttpReceiver
from network.mosquitto import Mosquitto, Subscriber

RECORDING = ROOT / "configs" / "recordings" / "bengalese-finch.flac"
ENGINE = [sys.executable, "-c", "from neurovocal.engine.cli import main; main()"]
LABELS = (
    "SELECT run, kind, stream, seq FROM messages WHERE kind = 'label' "
    "AND header LIKE '%\"final\"%' ORDER BY rowid"
)


def configuration(journal: Path, broker: Mosquitto, service: HttpReceiver) -> str:
    """Return a station that sends its labels to both."""
    station = {
        "version": 1,
        "station": "away",
        "source": {
            "plugin": "playback",
            "options": {"path": str(RECORDING), "repeat": 5},
        },
        "bundle": "bengalese-finch",
        "models": [{"plugin": "classifier"}],
        "sinks": [
            {"plugin": "journal", "options": {"path": str(journal)}},
            {
                "plugin": "webhook",
                "options": {
                    "url": service.url,
                    "journal": str(journal),
                    "most_per_s": 500,
                },
            },
            {
                "plugin": "mqtt",
                "options": {"broker": broker.address, "journal": str(journal)},
            },
        ],
    }
    return yaml.safe_dump(station)


def main() -> None:
    """Run the measurement and print one line for each receiver."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=float, default=30.0, help="seconds")
    parser.add_argument("--away", type=float, default=60.0, help="seconds")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        journal, config = folder / "run.sqlite", folder / "station.yaml"
        broker, service = Mosquitto(folder), HttpReceiver()
        broker.start()
        service.start()
        config.write_text(configuration(journal, broker, service))
        with Subscriber(broker) as subscriber:
            engine = subprocess.Popen(
                [*ENGINE, "run", str(config), "--plain"], stdout=subprocess.DEVNULL
            )
            time.sleep(given.before)
            broker.stop()
            service.stop()
            time.sleep(given.away)
            broker.start()
            service.start()
            code = engine.wait()
            time.sleep(1.0)  # for the subscriber to read what the broker has
            connection = sqlite3.connect(journal)
            expected = [
                "/".join(map(str, row)).replace(".", "%2E")
                for row in connection.execute(LABELS)
            ]
            connection.close()
            received = {
                "mqtt": [event["id"] for event in subscriber.events()],
                "webhook": [
                    body["id"]
                    for request in service.requests
                    if (body := json.loads(request.body))["kind"] == "label"
                ],
            }
        broker.stop()
        service.stop()
    print(f"away for {given.away:g} s, exit code {code}")
    for name, ids in received.items():
        missing, twice = len(set(expected) - set(ids)), len(ids) - len(set(ids))
        order = "in order" if ids == expected else "not in order"
        print(
            f"{name}: {len(expected)} labels, {missing} missing, {twice} twice, {order}"
        )


if __name__ == "__main__":
    main()

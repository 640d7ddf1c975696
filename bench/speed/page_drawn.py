"""Lateness of labels on the page, as a person sees it: from sound to drawn label.

The shipped recording is played in real time, as a sound card delivers it, labelled by
the shipped bundle, and its page is open in a headless Chromium, which draws it. For
each segment are measured

* from its onset to the moment at which its first label was drawn (a provisional one);
* from its end to the moment at which its final label was drawn.

The engine dates samples by the clock of this machine, and so does the browser. What is
drawn is on the screen with the next picture of the display, 16 ms later at most.

    .venv/bin/python bench/speed/page_drawn.py --labels 100
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import yaml
from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
RECORDING = ROOT / "configs" / "recordings" / "bengalese-finch.flac"
NEUROVOCAL = [sys.executable, "-c", "from neurovocal.engine.cli import main; main()"]
SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
GOAL_MS = 200.0
PATIENCE_S = 120.0


def config(port: int) -> dict[str, Any]:
    """Return a run's configuration with a recording of known start time."""
    return {
        "version": 1,
        "source": {
            "plugin": "playback",
            "options": {"path": str(RECORDING), "repeat": 0},
        },
        "bundle": "bengalese-finch",
        "models": [
            {"plugin": "classifier"},
            {"plugin": "rnn_rbm", "options": {"synthesis": "predict", "seed": 7}},
        ],
        "sinks": [{"plugin": "web", "options": {"endpoint": f"127.0.0.1:{port}"}}],
    }


def wait_for(url: str) -> None:
    """Wait until a page answers."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            with urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"{url} does not answer")


def lateness(drawn: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Return the lateness of first and final labels in ms, by segment."""
    first: dict[Any, float] = {}
    final: dict[Any, float] = {}
    for label in drawn:
        if label["utcMs"] is None:
            continue
        late = label["drawnMs"] - label["utcMs"]
        first.setdefault(label["segment"], late)
        if label["status"] == "final":
            length = (label["offset"] - label["onset"]) / label["rate"] * 1000
            final[label["segment"]] = late - length
    return {
        "onset to first label": [*first.values()],
        "end to final": [*final.values()],
    }


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--labels", type=int, default=100, help="final labels")
    arguments = parser.parse_args()
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        raise SystemExit("no chromium is installed: apt-get install chromium")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "page.yaml"
        path.write_text(yaml.safe_dump(config(port)))
        run = subprocess.Popen(
            [*NEUROVOCAL, "run", str(path), "--json"], stdout=subprocess.DEVNULL
        )
        browser = playwright.chromium.launch(
            executable_path=browser_path, args=SWITCHES
        )
        try:
            url = f"http://127.0.0.1:{port}/"
            wait_for(url)
            page = browser.new_page(viewport={"width": 1400, "height": 1000})
            page.goto(url)
            # What was heard before the page was open is no measure of its speed.
            page.wait_for_function(
                "() => neurovocal.drawn().length > 0", timeout=1000 * PATIENCE_S
            )
            page.wait_for_timeout(3000)
            before = page.evaluate("neurovocal.drawn().length")
            count = (
                f"neurovocal.drawn().slice({before})"
                ".filter((d) => d.status === 'final').length"
            )
            page.wait_for_function(
                f"() => {count} >= {arguments.labels}", timeout=1000 * PATIENCE_S
            )
            drawn = page.evaluate(f"neurovocal.drawn().slice({before})")
        finally:
            browser.close()
            run.terminate()
            run.wait(30)
    table = Table("", "labels", "median, ms", "95 %", "longest", "within 200 ms")
    for name, values in lateness(drawn).items():
        middle, most = np.percentile(values, [50, 95])
        within = np.mean(np.array(values) <= GOAL_MS)
        figures = (
            f"{middle:.0f}",
            f"{most:.0f}",
            f"{max(values):.0f}",
            f"{within:.0%}",
        )
        table.add_row(name, str(len(values)), *figures)
    Console(width=100).print(table)
    load, cores = os.getloadavg()[0], os.cpu_count()
    print(f"load of the machine: {load:.1f} on {cores} cores")


if __name__ == "__main__":
    main()

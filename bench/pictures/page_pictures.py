"""Take the pictures of the live page in docs/pictures: real runs in a real browser.

    python bench/pictures/page_pictures.py            # needs chromium

One run of the shipped recording with the `web` sink, and `neurovocal monitor` for two
engines, one of which hears a synthetic bird and loses samples.
"""

import argparse
import io
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import yaml
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
RECORDING = ROOT / "configs" / "recordings" / "bengalese-finch.flac"
NEUROVOCAL = [sys.executable, "-c", "from neurovocal.engine.cli import main; main()"]
SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
MOST_BYTES = 200_000
PATIENCE_S = 90.0


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def program(*arguments: str) -> Iterator[None]:
    """Run a command of NeuroVocal until the block ends."""
    process = subprocess.Popen(
        [*NEUROVOCAL, *arguments], stdout=subprocess.DEVNULL, cwd=tempfile.gettempdir()
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def finch(folder: Path, **parts: Any) -> dict[str, Any]:
    """Return the configuration of a finch that sings without end."""
    options = {
        "path": str(RECORDING),
        "pace": "realtime",
        "repeat": 0,
        "streams": "one",
        "start_utc": "2026-05-01T04:59:30Z",
    }
    return {
        "version": 1,
        "station": "aviary",
        "source": {"plugin": "file", "options": options},
        "bundle": "bengalese-finch",
        "detector": {"plugin": "energy", "options": {"near_misses": True}},
        "models": [
            {"plugin": "classifier"},
            {"plugin": "rnn_rbm", "options": {"synthesis": "predict", "seed": 7}},
        ],
        **parts,
    }


def started(stack: ExitStack, folder: Path, name: str, config: dict[str, Any]) -> None:
    """Start a run of a configuration, until the stack is closed."""
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    stack.enter_context(program("run", str(path), "--json"))


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


def save(data: bytes, path: Path) -> None:
    """Write a picture as a small PNG, with as many pixels and colours as fit."""
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    small = io.BytesIO()
    # Medians, the usual way, would give all colours to the noise of the spectrogram.
    method = Image.Quantize.FASTOCTREE
    for scale, colours in ((1, 256), (1, 128), (0.8, 256), (0.8, 128), (0.7, 128)):
        size = round(picture.width * scale), round(picture.height * scale)
        reduced = picture.resize(size, Image.Resampling.LANCZOS)
        small = io.BytesIO()
        reduced.quantize(colours, method, dither=Image.Dither.NONE).save(
            small, "PNG", optimize=True
        )
        if small.tell() <= MOST_BYTES:
            break
    path.write_bytes(small.getvalue())
    print(f"{path}: {small.tell() / 1000:.0f} kB")


def shoot(
    browser: Browser,
    url: str,
    path: Path,
    size: tuple[int, int],
    scheme: str,
    ready: str,
    script: str = "",
) -> None:
    """Open a page, wait until `ready` is true there, and save a screenshot."""
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme
    )
    page = context.new_page()
    page.goto(url)
    page.wait_for_function(ready, timeout=1000 * PATIENCE_S)
    if script:
        page.evaluate(script)
    page.wait_for_timeout(700)
    save(page.screenshot(), path)
    context.close()


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        raise SystemExit("no chromium is installed: apt-get install chromium")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(
            executable_path=browser_path, args=SWITCHES
        )
        one_station(browser, folder, options.out)
        two_stations(browser, folder, options.out)
        browser.close()


def one_station(browser: Browser, folder: Path, out: Path) -> None:
    """Take the page of one run, in light and dark and on a phone."""
    web, control = free_port(), f"tcp://127.0.0.1:{free_port()}"
    url = f"http://127.0.0.1:{web}/"
    # A song is in sight, and enough has been counted.
    ready = (
        "() => neurovocal.page.tallies.labels >= 150 &&"
        " neurovocal.report()[0].geometry.segments.length >= 30"
    )
    sinks = [
        {"plugin": "web", "options": {"endpoint": f"127.0.0.1:{web}"}},
    ]
    sinks[0]["options"]["control"] = control
    config = finch(
        folder,
        sinks=sinks,
        control={"plugin": "zmq", "options": {"endpoint": control}},
    )
    with ExitStack() as stack:
        started(stack, folder, "one", config)
        wait_for(url)
        wide, phone = (1400, 1180), (390, 844)
        shoot(browser, url, out / "page-light.png", wide, "light", ready)
        shoot(browser, url, out / "page-dark.png", wide, "dark", ready)
        on_phone = ready.replace(">= 30", ">= 15")
        shoot(browser, url, out / "page-phone.png", phone, "light", on_phone)


def two_stations(browser: Browser, folder: Path, out: Path) -> None:
    """Take the page of a monitor of two engines."""
    live = [f"tcp://127.0.0.1:{free_port()}" for _ in range(2)]
    kinds = ["onset", "offset", "near_miss", "label", "forecast", "gap", "withheld"]
    kinds += ["anchor", "health", "control", "stats", "frames", "trace"]
    zmq = [
        [{"plugin": "zmq", "options": {"endpoint": one}, "events": kinds}]
        for one in live
    ]
    calls = {
        "duration_s": None,
        "pace": "realtime",
        "n_units": 3,
        "song_length": 3,
        "snr_db": 25.0,
    }
    pond = {
        "version": 1,
        "station": "pond",
        "source": {"plugin": "synthetic", "options": calls},
        "detector": {"plugin": "bands", "options": {"near_misses": True}},
        "faults": [{"fault": "drop", "at_s": 12.0, "for_s": 0.6}],
        "sinks": zmq[1],
    }
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    ready = (
        "() => neurovocal.page.tallies.labels >= 60 && neurovocal.report().length === 2"
        " && neurovocal.report().every((r) => r.geometry.segments.length >= 4)"
        " && neurovocal.report().some((r) => r.geometry.spans.some((s) =>"
        " s.x1 - s.x0 > 10 && s.x0 < 1100))"
    )
    with ExitStack() as stack:
        started(stack, folder, "aviary", finch(folder, sinks=zmq[0]))
        watched = [f"aviary={live[0]}", f"pond={live[1]}"]
        stack.enter_context(program("monitor", "--port", str(port), *watched))
        wait_for(url)
        started(stack, folder, "pond", pond)
        wide = (1400, 1180)
        shoot(browser, url, out / "page-stations.png", wide, "light", ready)


if __name__ == "__main__":
    main()

"""Checks of Python, the libraries and the optional extras."""

import platform
import re
import shutil
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version

from neurovocal.engine.cli.diagnosis.findings import (
    Finding,
    install_command,
    pip_command,
)

DISTRIBUTION = "neurovocal"
# Libraries with code of their own, which may be damaged or lack a shared library.
_NATIVE = {
    **{"numpy": "numpy", "scipy": "scipy.signal", "onnxruntime": "onnxruntime"},
    **{"pyzmq": "zmq", "soundfile": "soundfile", "soxr": "soxr"},
    **{"msgspec": "msgspec", "pydantic": "pydantic"},
}
# What each extra gives; those that only developers need are left out.
EXTRAS = {
    "train": "train, evaluate, generate and reports",
    "discover": "kinds of sounds without labels",
    "fast": "compiled kernels of detectors and classifier",
    "lsl": "Lab Streaming Layer",
    "mqtt": "MQTT and Home Assistant",
    "osc": "Open Sound Control",
    "parquet": "Parquet tables",
    "privacy": "the gate that withholds human voices",
    "prometheus": "metrics for Prometheus",
    "scan": "archives of recordings on several cores or machines",
    "scan-gs": "archives in Google Cloud Storage",
    "scan-http": "archives on web servers",
    "scan-s3": "archives in S3",
    "text": "names of sounds, by encoders of audio and text",
    "zeroconf": "stations that find each other in a network",
}
FOR_DEVELOPERS = frozenset({"bench", "dev", "docs"})
_EXTRA = re.compile(r"""extra\s*==\s*['"]([\w-]+)['"]""")


def software_findings() -> Iterator[Finding]:
    """Yield Python and its libraries, those that are missing or damaged one by one."""
    here = f"{platform.python_version()} ({sys.executable})"
    yield Finding("Python", "ok", here)
    yield Finding("neurovocal", "ok", version(DISTRIBUTION))
    found = []
    for name in runtime_requirements():
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            yield Finding("library", "missing", f"{name} lacks", pip_command(name))
            continue
        if name not in _NATIVE:
            continue
        try:
            import_module(_NATIVE[name])
        except Exception as error:  # whatever a damaged library raises
            fix = pip_command(f"--force-reinstall {name}")
            yield Finding("library", "missing", f"{name} is damaged: {error}", fix)
    yield Finding("libraries", "ok", ", ".join(found))


def extra_findings() -> Iterator[Finding]:
    """Yield which optional extras are installed, and what the others would give."""
    wanted = extra_requirements()
    for extra, gives in EXTRAS.items():
        names = wanted.get(extra, [])
        absent = [name for name in names if not _is_installed(name)]
        if not names:
            continue
        if absent:
            fix = pip_command(f"{DISTRIBUTION}[{extra}]")
            yield Finding(f"extra {extra}", "note", f"not installed: {gives}", fix)
        else:
            yield Finding(f"extra {extra}", "ok", gives)
    if shutil.which("ffmpeg"):
        yield Finding("ffmpeg", "ok", "found: RTSP and HTTP streams")
    else:
        text = "not installed: RTSP and HTTP streams (source pipe)"
        yield Finding("ffmpeg", "note", text, install_command("ffmpeg"))


def runtime_requirements() -> list[str]:
    """Return the names of the libraries that every run may need."""
    stated = requires(DISTRIBUTION) or []
    return [_name(each) for each in stated if not _EXTRA.search(each)]


def extra_requirements() -> dict[str, list[str]]:
    """Return the names of the libraries of each extra, without those of others."""
    found: dict[str, list[str]] = {}
    for each in requires(DISTRIBUTION) or []:
        extra = _EXTRA.search(each)
        if extra and _name(each) != DISTRIBUTION:
            found.setdefault(extra[1], []).append(_name(each))
    return found


def _name(requirement: str) -> str:
    return re.split(r"[\s\[<>=!~;(]", requirement, maxsplit=1)[0]


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True

"""Checks of the machine: cores, memory, disk, clock, sound, free ports."""

import ctypes
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from neurovocal.engine.cli.diagnosis.findings import (
    Finding,
    State,
    as_administrator,
    install_command,
)
from neurovocal.engine.contracts.errors import NeurovocalError
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.support.platform import (
    IS_LINUX,
    total_memory_bytes,
    usable_cores,
)

_GIB = 2**30
_LEAST_MEMORY = 1 * _GIB
_LEAST_FREE = 1 * _GIB
_PROGRAM_S = 10.0
_SOUND = Path("/dev/snd")
# adjtimex(2): the size of struct timex is below it; status is its fifth field.
_TIMEX_BYTES = 512
_UNSYNCHRONISED = 5  # TIME_ERROR


def machine_findings() -> Iterator[Finding]:
    """Yield cores, memory and clock."""
    cores, memory = usable_cores(), total_memory_bytes()
    yield Finding("cores", "ok", f"{cores} usable")
    if memory < _LEAST_MEMORY:
        yield Finding(
            "memory", "note", f"{memory / _GIB:.1f} GiB: enough for a lane without page"
        )
    else:
        yield Finding("memory", "ok", f"{memory / _GIB:.1f} GiB")
    yield clock_finding(_is_synchronised())


def clock_finding(is_synchronised: bool | None) -> Finding:
    """Return what is known of the clock's synchronisation; None: nothing."""
    if is_synchronised is None:
        return Finding("clock", "note", "the system does not say if it is in step")
    if is_synchronised:
        return Finding("clock", "ok", "synchronised")
    fix = as_administrator("timedatectl set-ntp true")
    if not shutil.which("timedatectl"):
        fix = install_command("chrony")
    return Finding(
        "clock",
        "note",
        "not synchronised: times of day of what is recorded will be wrong",
        fix,
    )


def _is_synchronised() -> bool | None:
    if not IS_LINUX:
        return None
    with suppress(OSError, AttributeError):
        timex = ctypes.create_string_buffer(_TIMEX_BYTES)  # modes 0: only read
        state = ctypes.CDLL(None).adjtimex(timex)
        return None if state < 0 else state != _UNSYNCHRONISED
    return None


def disk_finding(folder: Path, *, what: str = "disk") -> Finding:
    """Return free space and permission of a folder that is written, or will be made."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        return Finding(what, "missing", f"'{place}' is no folder", "name another one")
    if not os.access(place, os.W_OK | os.X_OK):
        return Finding(
            what,
            "missing",
            f"'{place}' cannot be written by this user",
            _owner_command(place),
        )
    try:
        free = shutil.disk_usage(place).free
    except OSError as error:
        return Finding(what, "missing", f"'{place}': {error.strerror}")
    text = f"'{place}': {free / _GIB:.1f} GiB free, can be written"
    if free < _LEAST_FREE:
        return Finding(what, "note", f"{text}: an hour of audio takes 0.3 to 2 GiB")
    return Finding(what, "ok", text)


def _owner_command(folder: Path) -> str:
    if sys.platform == "win32":
        return "name another folder"
    return as_administrator(f"chown \"$USER\" '{folder}'")


def port_findings(ports: Iterable[int], *, needed: bool) -> Iterator[Finding]:
    """Yield whether each port of the loopback address is free."""
    for port in sorted(set(ports)):
        with socket.socket() as one:
            try:
                one.bind(("127.0.0.1", port))
            except OSError as error:
                yield Finding(
                    f"port {port}",
                    "missing" if needed else "note",
                    f"cannot be bound: {error.strerror or error} (another run?)",
                    "stop what uses it, or choose another with --set",
                )
                continue
        yield Finding(f"port {port}", "ok", "free")


# ---- sound ---------------------------------------------------------------------------


def sound_findings(*, needed: bool) -> Iterator[Finding]:
    """Yield PortAudio, the inputs that it finds, permissions and sound server.

    Parameters
    ----------
    needed : bool
        Whether the configuration listens to a sound card.
    """
    lacking: State = "missing" if needed else "note"
    registry, inputs = Registry(), []
    try:
        for name in registry.names("source"):
            plugin = registry.get("source", name)
            if plugin.devices is not None:
                inputs += plugin.devices()
    except NeurovocalError as error:
        fix = install_command("portaudio") or _wheel_of_sounddevice()
        only = "" if needed else " (only microphones and loudspeakers need it)"
        yield Finding("PortAudio", lacking, f"{str(error).split(':')[0]}{only}", fix)
        return
    yield Finding("PortAudio", "ok", "found")
    yield from _permission_findings(lacking)
    if not inputs:
        yield Finding(
            "sound inputs",
            lacking,
            "none",
            "connect a microphone or sound card, then: neurovocal devices",
        )
    for device in inputs:
        default = ", default" if device.get("default") else ""
        yield Finding(
            "sound input",
            "ok",
            f"{device.get('name')}: {device.get('channels')} channels, "
            f"{device.get('sample_rate')} Hz{default}",
        )
    yield _server_finding()


def _wheel_of_sounddevice() -> str:
    """On Windows and macOS the package sounddevice brings PortAudio."""
    return f"{sys.executable} -m pip install --force-reinstall sounddevice"


def _permission_findings(lacking: State) -> Iterator[Finding]:
    """Yield a finding if the kernel's sound devices are closed to this user."""
    if not IS_LINUX or not _SOUND.is_dir():
        return
    captures = sorted(_SOUND.glob("pcm*c"))
    closed = [path for path in captures if not os.access(path, os.R_OK | os.W_OK)]
    if closed:
        yield Finding(
            "permission",
            lacking,
            f"this user may not open {', '.join(path.name for path in closed)}",
            as_administrator('usermod -aG audio "$USER"') + "   # then log in again",
        )


def _server_finding() -> Finding:
    if not IS_LINUX:
        return Finding("sound server", "ok", "the system's own")
    if shutil.which("pactl"):
        with suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run(
                ["pactl", "info"],
                capture_output=True,
                text=True,
                timeout=_PROGRAM_S,
                env={**os.environ, "LC_ALL": "C"},
            )
            for line in done.stdout.splitlines():
                if line.startswith("Server Name:"):
                    return Finding("sound server", "ok", line.partition(":")[2].strip())
    folder = Path(os.environ.get("XDG_RUNTIME_DIR", "/run/user/0"))
    for name in ("pipewire-0", "pulse/native"):
        if (folder / name).exists():
            return Finding("sound server", "ok", name.partition("/")[0])
    return Finding(
        "sound server",
        "note",
        "none: sound cards are opened directly, by one program at a time",
        install_command("pipewire"),
    )

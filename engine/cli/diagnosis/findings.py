"""Findings of `neurovocal doctor`, and the commands that install what is missing."""

import os
import shutil
import sys
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

State: TypeAlias = Literal["ok", "note", "missing"]

# Program that installs packages, and how it is called; the first one that exists.
_MANAGERS = {
    "apt-get": "apt-get install -y {}",
    "dnf": "dnf install -y {}",
    "pacman": "pacman -S --noconfirm {}",
    "zypper": "zypper install -y {}",
    "brew": "brew install {}",
    "winget": "winget install {}",
}
_OF_USERS = ("brew", "winget")  # they need no administrator
# What each of them calls a package; without a name there, pip has it.
_PACKAGES = {
    "portaudio": {
        "apt-get": "libportaudio2",
        "dnf": "portaudio",
        "pacman": "portaudio",
        "zypper": "libportaudio2",
        "brew": "portaudio",
    },
    "ffmpeg": {
        "apt-get": "ffmpeg",
        "dnf": "ffmpeg-free",
        "pacman": "ffmpeg",
        "zypper": "ffmpeg",
        "brew": "ffmpeg",
        "winget": "Gyan.FFmpeg",
    },
    "chrony": {
        "apt-get": "chrony",
        "dnf": "chrony",
        "pacman": "chrony",
        "zypper": "chrony",
    },
    "pipewire": {
        "apt-get": "pipewire-pulse",
        "dnf": "pipewire-pulseaudio",
        "pacman": "pipewire-pulse",
        "zypper": "pipewire-pulseaudio",
    },
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check.

    Parameters
    ----------
    check : str
        What was looked at, in one or two words.
    state : {'ok', 'note', 'missing'}
        ``missing`` keeps a run from working, ``note`` is worth knowing.
    text : str
        One sentence or a few words.
    fix : str
        Command, or advice, that mends it; empty: there is nothing to mend.
    """

    check: str
    state: State
    text: str
    fix: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        return asdict(self)


def install_command(package: str) -> str:
    """Return the command that installs a package of the system, on this system.

    Parameters
    ----------
    package : {'portaudio', 'ffmpeg', 'chrony', 'pipewire'}

    Returns
    -------
    str
        Empty where no known program has it.
    """
    names = _PACKAGES[package]
    for manager, command in _MANAGERS.items():
        if manager in names and shutil.which(manager):
            return as_administrator(command.format(names[manager]), manager)
    return ""


def as_administrator(command: str, manager: str = "") -> str:
    """Return a command with `sudo` before it, where this user needs it."""
    if manager in _OF_USERS or sys.platform == "win32":
        return command
    is_root = getattr(os, "geteuid", lambda: 1)() == 0
    return command if is_root else f"sudo {command}"


def pip_command(requirement: str) -> str:
    """Return the command that installs a Python package into this environment."""
    quoted = f"'{requirement}'" if "[" in requirement else requirement
    return f"{sys.executable} -m pip install {quoted}"

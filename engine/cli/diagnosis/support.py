"""The file of `neurovocal support`: what helps somebody else to find a fault."""

import json
import platform
import re
import sqlite3
import subprocess
import sys
import zipfile
from collections import deque
from collections.abc import Iterator
from contextlib import closing, suppress
from importlib.metadata import distributions
from pathlib import Path
from shutil import which
from typing import Any

from neurovocal.engine.cli.diagnosis.report import examine, lines_of, verdict
from neurovocal.engine.config.located_yaml import parse_located
from neurovocal.engine.config.schema import find_config
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.journal.store import open_to_read, runs, unreadable
from neurovocal.engine.support import safe_yaml
from neurovocal.engine.support.credentials import (
    hide_credentials,
    masked,
    without_credentials,
)
from neurovocal.engine.support.names import may_never_end
from neurovocal.engine.support.safe_yaml import dump

_HIDDEN = "***"
# Options whose values never leave, whatever plugin they belong to.
_SECRET = re.compile(
    r"pass|secret|token|credential|auth|cookie|signature|private|certificate|"
    r"api_?key|access_?key|^keys?$|^user(name)?$|^login$|headers?$",
    re.IGNORECASE,
)
_MOST_LINES = 2000
_MOST_ODD = 0.1  # share of characters that no text has; terminals' colours are few
_MOST_LINE = 2000
_MOST_EVENTS = 500
_SERVICE = "neurovocal"
_PROGRAM_S = 10.0
# Kinds of events that hold neither sound nor what was found in it.
_PLAIN_KINDS = ("health", "gap", "control", "anchor")


def support_parts(
    config: str | None, journal: Path | None, log: Path | None
) -> dict[str, bytes]:
    """Return the files to pack, by name.

    Raises
    ------
    ConfigError
        A file that was named cannot be read.
    """
    findings = list(examine(config))
    report = [*lines_of(findings, columns=100), verdict(findings)]
    parts: dict[str, Any] = {
        "doctor.txt": "\n".join(report),
        "doctor.json": _json([finding.as_dict() for finding in findings]),
        "system.json": _json(_system()),
        "packages.txt": "\n".join(sorted(_packages(), key=str.lower)),
    }
    if config is not None:
        parts["configuration.yaml"] = configuration_text(find_config(config))
    if journal is not None:
        try:
            parts.update(_journal_parts(journal))
        except ConfigError as error:
            if not journal.is_file():
                raise
            # A damaged journal may be why somebody is asked; the rest helps, too.
            parts["journal-error.txt"] = str(error)
    lines = _log_lines(log)
    if lines is not None:
        parts["log.txt"] = "\n".join(lines)
    return {
        name: (without_secrets(text) + "\n").encode() for name, text in parts.items()
    }


def write_support_file(path: Path, parts: dict[str, bytes]) -> None:
    """Write the files into a new ZIP file.

    Raises
    ------
    ConfigError
        The file exists, or cannot be written.
    """
    if path.suffix != ".zip":
        raise ConfigError(f"'{path}': name a .zip file")
    try:
        with (
            path.open("xb") as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        ):
            for name, content in parts.items():
                archive.writestr(name, content)
    except FileExistsError:
        raise ConfigError(f"'{path}' exists: choose another name") from None
    except OSError as error:
        raise ConfigError(f"'{path}' cannot be written: {error.strerror}") from error


def configuration_text(path: Path) -> str:
    """Return a configuration without comments and secrets, as YAML.

    Environment variables stay as ``${NAME}``. Of a file that is no YAML nothing is
    taken: a secret could stand anywhere in it.
    """
    try:
        return _redacted_yaml(safe_yaml.read_text(path), str(path))
    except safe_yaml.YamlError as error:
        return f"# left out, because it cannot be read: {error}"
    except OSError as error:
        raise ConfigError(f"'{path}' cannot be read: {error.strerror}") from error


def _redacted_yaml(text: str, name: str) -> str:
    try:
        located = parse_located(text, name, keep_unset=True)
    except ConfigError:  # its sentences may quote what is wrong
        return "# left out, because it is no valid YAML"
    return str(dump(redacted(located.unexpanded())))


def redacted(data: Any) -> Any:
    """Return the data of a configuration with all that may be secret hidden.

    Hidden are the values of options with names such as ``password``, ``token`` or
    ``headers``, whole, users and passwords in addresses, and the path of a ``url``.
    """
    if isinstance(data, dict):
        kept = {
            key: _HIDDEN
            if _SECRET.search(str(key)) and value not in (None, "", [], {})
            else value
            for key, value in data.items()
        }
        texts = {key: value for key, value in kept.items() if isinstance(value, str)}
        return {key: redacted(value) for key, value in kept.items()} | (
            without_credentials(texts)
        )
    if isinstance(data, list):
        return [redacted(value) for value in data]
    return without_credentials(data)


def without_secrets(text: str) -> str:
    """Return a text without credentials and without the name of the home folder."""
    text = masked(hide_credentials(text))
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text


def _json(data: Any) -> str:
    return json.dumps(data, indent=1, default=str)


def _system() -> dict[str, Any]:
    release: dict[str, str] = {}
    with suppress(OSError, AttributeError):
        release = platform.freedesktop_os_release()
    return {
        "system": platform.platform(),
        "distribution": release.get("PRETTY_NAME", ""),
        "machine": platform.machine(),
        "python": sys.version,
        "executable": sys.executable,
        "arguments": [Path(sys.argv[0]).name, *sys.argv[1:2]],
    }


def _packages() -> Iterator[str]:
    for each in distributions():
        name = each.metadata["Name"]
        if name:
            yield f"{name} {each.version}"


def _journal_parts(path: Path) -> dict[str, str]:
    """Return counts per run, stream and kind, and the last events about health."""
    recorded = runs(path)
    last = recorded[-1].config if recorded else ""
    with closing(open_to_read(path)) as connection:
        try:
            counts = connection.execute(
                "SELECT run, stream, kind, count(*) FROM messages "
                "GROUP BY run, stream, kind ORDER BY run, stream, kind"
            ).fetchall()
            events = _last_headers(connection, _PLAIN_KINDS)
            stats = _last_headers(connection, ("stats",))
        except sqlite3.Error as error:
            raise unreadable(path, error) from error
    keys = ("run", "stream", "kind", "messages")
    return {
        "journal.json": _json(
            {
                "runs": [{**r._asdict(), "config": "as below"} for r in recorded],
                "counts": [dict(zip(keys, row, strict=True)) for row in counts],
            }
        ),
        "journal-config.yaml": _redacted_yaml(last, str(path)),
        "events.jsonl": "\n".join(events),
        "stats.jsonl": "\n".join(stats),
    }


def _last_headers(connection: sqlite3.Connection, kinds: tuple[str, ...]) -> list[str]:
    """Return the headers of the newest events of some kinds, the oldest first."""
    marks = ", ".join("?" * len(kinds))
    rows = connection.execute(
        f"SELECT header FROM messages WHERE kind IN ({marks}) "
        "ORDER BY rowid DESC LIMIT ?",
        (*kinds, _MOST_EVENTS),
    ).fetchall()
    return [str(header) for (header,) in reversed(rows)]


def _is_text(text: str) -> bool:
    """Return whether a file could be a log: it is not one of audio, for example."""
    odd = sum(c == "\ufffd" or not (c.isprintable() or c.isspace()) for c in text)
    return odd <= _MOST_ODD * len(text)


def _log_lines(log: Path | None) -> list[str] | None:
    """Return the last lines of a log file, or else of systemd's journal."""
    if log is not None:
        try:
            if may_never_end(log):
                raise ConfigError(f"'{log}' is no file: name the log of the engine")
            with log.open(encoding="utf-8", errors="replace") as file:
                last = deque(file, _MOST_LINES)
        except OSError as error:
            raise ConfigError(f"'{log}' cannot be read: {error.strerror}") from error
        lines = [line.rstrip().lstrip("\0")[:_MOST_LINE] for line in last]
        if not _is_text("".join(lines)):
            raise ConfigError(f"'{log}' is no text: name the log of the engine")
        return lines
    if not which("journalctl"):
        return None
    command = ["journalctl", "--unit", _SERVICE, "--lines", str(_MOST_LINES)]
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(
            [*command, "--no-pager", "--quiet", "--output", "short-iso"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROGRAM_S,
        )
        lines = [line[:_MOST_LINE] for line in done.stdout.splitlines()]
        return lines or None
    return None

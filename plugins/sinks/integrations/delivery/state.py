"""State of a delivery on disk: what was delivered up to which event of the journal."""

import errno
from pathlib import Path

import msgspec

from neurovocal.engine import ConfigError
from neurovocal.engine.journal.follower import Position
from neurovocal.engine.support.names import beside
from neurovocal.engine.support.outputs import write_whole
from neurovocal.engine.support.strict_json import JsonError, JsonReader
from neurovocal.plugins.storage.file_lock import FileLock

_VERSION = 1
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class DeliveryState(msgspec.Struct):
    """What a delivery has done, over all runs.

    Parameters
    ----------
    version : int
        Version of the file.
    position : Position or None
        Last event that needs no delivery any more; None: of an empty journal.
    delivered : int
        Events that the service has taken.
    refused : int
        Events that the service has refused for good.
    removed : int
        Events of any kind that the journal removed before they were delivered.
    summary : str or None
        Local date (ISO 8601) on which the last daily summary was due and sent.
    """

    version: int = _VERSION
    position: Position | None = None
    delivered: int = 0
    refused: int = 0
    removed: int = 0
    summary: str | None = None


_read = JsonReader(DeliveryState).read


class StateFile:
    """File of a `DeliveryState`, replaced as a whole at each change.

    Parameters
    ----------
    path : Path
        The file, which need not exist.

    Attributes
    ----------
    state : DeliveryState
        The present state; that of the file after `load`.
    trouble : str or None
        Why the file could not be written the last time: after a kill, events that were
        delivered meanwhile are delivered again.
    is_disk_full : bool
        That is because the disk is full, which may pass.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = DeliveryState()
        self.trouble: str | None = None
        self.is_disk_full = False
        self._lock = FileLock()

    def acquire(self) -> None:
        """Keep other engines from the file, by a hidden file beside it.

        Nothing is kept from it where that file cannot be made, such as on a full disk.

        Raises
        ------
        ConfigError
            Another engine delivers with this state.
        """
        path = beside(self.path, before=".", after=".lock")
        try:
            path.touch()
        except OSError:
            return
        try:
            self._lock.acquire(path)
        except ConfigError:
            raise ConfigError(
                f"state '{self.path}' is in use: another engine delivers with it; "
                "name another file with the option state"
            ) from None

    def release(self) -> None:
        """Let other engines have the file. May be called twice."""
        self._lock.release()

    def load(self) -> bool:
        """Read the file; return False if there is none yet.

        Raises
        ------
        ConfigError
            It cannot be read, or is no state of a delivery.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise ConfigError(
                f"state '{self.path}' cannot be read: {error.strerror}"
            ) from error
        try:
            state = _read(content)
        except JsonError as error:
            raise ConfigError(
                f"'{self.path}' is not the state of a delivery ({error}): name another "
                "file with the option state, or remove it to begin with new events"
            ) from error
        if state.version != _VERSION:
            raise ConfigError(
                f"state '{self.path}' has version {state.version}, this program knows "
                f"{_VERSION}: name another file with the option state, or update"
            )
        self.state = state
        return True

    def save(self) -> None:
        """Write the file; a failure is noted in `trouble` and is no error."""
        try:
            write_whole(self.path, msgspec.json.encode(self.state) + b"\n")
        except OSError as error:
            self.trouble = f"state '{self.path}' cannot be written: {error.strerror}"
            self.is_disk_full = error.errno in _FULL
        else:
            self.trouble = None

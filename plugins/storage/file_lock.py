"""Locks by which other processes know that this one writes a file or a folder."""

import os
import socket
import stat
from collections.abc import Callable
from errno import EADDRINUSE
from pathlib import Path
from threading import Lock
from typing import TypeAlias

from neurovocal.engine import ConfigError
from neurovocal.engine.support.platform import IS_LINUX, IS_WINDOWS, lock_file

FileIdentity: TypeAlias = tuple[int, int]  # device, inode

_guard = Lock()
# By what is locked: the function that releases it, and the number of users.
_held: dict[FileIdentity, tuple[Callable[[], None], int]] = {}


class FileLock:
    """Lock of a file or folder, which the sinks of one process share.

    The system releases it when the process ends. A file system without locks grants
    every lock. The lock of a folder does not keep its disk from being unmounted.
    """

    def __init__(self) -> None:
        self._identity: FileIdentity | None = None

    def acquire(self, path: Path) -> None:
        """Lock a file or folder; release the lock held before.

        Pipes, devices and what does not exist are not locked.

        Raises
        ------
        ConfigError
            Another process holds the lock.
        """
        self.release()
        try:
            status = path.stat()
        except OSError:
            return
        identity = status.st_dev, status.st_ino
        if stat.S_ISDIR(status.st_mode):
            if IS_WINDOWS:  # it has no locks of folders
                return
            lock = _lock_folder
        elif stat.S_ISREG(status.st_mode):
            lock = _lock_file
        else:
            return
        with _guard:
            release, users = _held.get(identity, (None, 0))
            try:
                release = release or lock(path, identity)
            except BlockingIOError:
                raise ConfigError(
                    f"'{path}' is in use: another engine or command writes it"
                ) from None
            except OSError:  # a file system without locks
                return
            _held[identity] = release, users + 1
        self._identity = identity

    def release(self) -> None:
        """Release the lock, if it is held."""
        identity, self._identity = self._identity, None
        if identity is None:
            return
        with _guard:
            release, users = _held.pop(identity)
            if users > 1:
                _held[identity] = release, users - 1
            else:
                release()


def _lock_file(path: Path, identity: FileIdentity) -> Callable[[], None]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        lock_file(descriptor)
    except OSError:
        os.close(descriptor)
        raise
    return lambda: os.close(descriptor)


def _lock_folder(path: Path, identity: FileIdentity) -> Callable[[], None]:
    """Lock a folder by an address that names it: an open folder keeps its disk."""
    if not IS_LINUX:
        return _lock_file(path, identity)
    address = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        address.bind(f"\0neurovocal folder {identity[0]} {identity[1]}")
    except OSError as error:
        address.close()
        if error.errno == EADDRINUSE:
            raise BlockingIOError from error
        raise
    return address.close

"""Folders of CURVE keys, of an engine and of its clients.

ENGINE/server.key_secret        secret key of the engine, readable by its user only
ENGINE/server.key               public key of the engine, needed by every client
ENGINE/readers/NAME.key         public keys of clients that may subscribe and replay
ENGINE/controllers/NAME.key     public keys of clients that may send commands, too
CLIENT/client.key_secret        secret key of a client
CLIENT/server.key               public key of the engine that the client trusts

The files are ZeroMQ certificates (docs/station/security.md).
"""

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.support.names import resolved

if TYPE_CHECKING:
    import zmq

Role: TypeAlias = Literal["read", "control"]

SERVER = "server"
CLIENT = "client"
FOLDERS: dict[Role, str] = {"read": "readers", "control": "controllers"}
_NAME = re.compile(r"[\w][\w.-]{0,63}")
_PRIVATE = 0o700
_MOST_KEY_BYTES = 64 * 1024
_TRAVERSABLE = stat.S_IXGRP | stat.S_IXOTH


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Public and secret key in ZeroMQ's encoding (Z85, 40 characters)."""

    public: bytes
    secret: bytes


def make_engine_keys(folder: Path) -> None:
    """Create the key pair of an engine, and folders for the keys of its clients.

    Raises
    ------
    ConfigError
        There are keys already, or the folder cannot be written.
    """
    import zmq.auth

    if (folder / f"{SERVER}.key_secret").exists():
        raise ConfigError(f"'{folder}' holds keys already; they are left as they are")
    if os.path.isdir(folder) and (others := _foreign(folder)):
        raise ConfigError(
            f"'{folder}' holds other files ({', '.join(others[:3])}), which only this "
            "user could read then: name a folder for the keys alone"
        )
    try:
        folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        folder.chmod(_PRIVATE)
        for name in FOLDERS.values():
            (folder / name).mkdir(mode=_PRIVATE, exist_ok=True)
        zmq.auth.create_certificates(folder, SERVER)
        (folder / f"{SERVER}.key_secret").chmod(0o600)
    except OSError as error:
        raise ConfigError(f"'{folder}' cannot be written: {error.strerror}") from error


def add_client(engine: Path, name: str, role: Role, out: Path) -> None:
    """Create the keys of a client in `out`, and add it to the engine's clients.

    Raises
    ------
    ConfigError
        The engine has no keys, the name is taken or malformed, or a folder cannot
        be written.
    """
    import zmq.auth

    public = engine / f"{SERVER}.key"
    if not public.is_file():
        raise ConfigError(
            f"'{engine}' holds no keys of an engine: 'neurovocal keys new {engine}'"
        )
    if not _NAME.fullmatch(name):
        raise ConfigError(f"'{name}' is no name: letters, digits, '-', '_', '.'")
    if name in {known for known, _ in clients(engine)}:
        raise ConfigError(f"'{engine}' knows a client '{name}' already")
    if (out / f"{CLIENT}.key_secret").exists():
        raise ConfigError(f"'{out}' holds keys already; they are left as they are")
    if os.path.isdir(out) and os.listdir(out):
        raise ConfigError(
            f"'{out}' holds other files: name a new folder for the keys of {name}"
        )
    try:
        out.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        own, _ = zmq.auth.create_certificates(out, CLIENT)
        (out / f"{CLIENT}.key_secret").chmod(0o600)
        (out / public.name).write_bytes(public.read_bytes())
        target = engine / FOLDERS[role] / f"{name}.key"
        target.write_bytes(Path(own).read_bytes())
        Path(own).unlink()
    except OSError as error:
        raise ConfigError(f"keys cannot be written: {error}") from error


def _foreign(folder: Path) -> list[str]:
    """Return the names in a folder that are none of an engine's keys."""
    own = {*FOLDERS.values(), f"{SERVER}.key"}
    return sorted(name for name in os.listdir(folder) if name not in own)


def remove_client(engine: Path, name: str) -> None:
    """Remove a client; a running engine rejects it from its next connection on.

    Raises
    ------
    ConfigError
        There is no such client.
    """
    found = [
        engine / folder / f"{name}.key"
        for folder in FOLDERS.values()
        if _NAME.fullmatch(name) and (engine / folder / f"{name}.key").is_file()
    ]
    if not found:
        known = ", ".join(sorted(known for known, _ in clients(engine))) or "none"
        raise ConfigError(f"'{engine}' knows no client '{name}' (it knows: {known})")
    for path in found:
        path.unlink()


def clients(engine: Path) -> list[tuple[str, Role]]:
    """Return the sorted names and roles of an engine's clients."""
    return sorted(
        (path.stem, role)
        for role, folder in FOLDERS.items()
        for path in (engine / folder).glob("*.key")
    )


def engine_keys(folder: Path) -> KeyPair:
    """Read the key pair of an engine.

    Raises
    ------
    ConfigError
        There are none, they cannot be read, or others may read the secret.
    """
    return _pair(folder / f"{SERVER}.key_secret", f"neurovocal keys new {folder}")


def key_problems(folder: Path) -> list[str]:
    """Return a sentence per problem of an engine's keys."""
    try:
        engine_keys(folder)
    except ConfigError as error:
        return str(error).split("\n")
    return []


def allowed_keys(folder: Path, role: Role) -> frozenset[bytes]:
    """Return the public keys with a role; controllers may read, too."""
    roles: list[Role] = ["control"] if role == "control" else ["read", "control"]
    found = set()
    for one in roles:
        for path in (folder / FOLDERS[one]).glob("*.key"):
            try:
                found.add(_public(path))
            except ConfigError:
                continue  # a file that is being written, or no key
    return frozenset(found)


def use_client_keys(zmq_socket: "zmq.Socket[bytes]", folder: str | Path) -> None:
    """Set a client's CURVE keys on a socket.

    Parameters
    ----------
    zmq_socket : Socket
        Not connected yet.
    folder : path
        Folder made by ``neurovocal keys add`` for this client.

    Raises
    ------
    ConfigError
        The folder lacks a key, or others may read the secret.
    """
    own = _pair(Path(folder) / f"{CLIENT}.key_secret", "neurovocal keys add")
    zmq_socket.curve_publickey = own.public
    zmq_socket.curve_secretkey = own.secret
    zmq_socket.curve_serverkey = _public(Path(folder) / f"{SERVER}.key")


def _pair(path: Path, remedy: str) -> KeyPair:
    try:
        found = path.is_file()
        readable = not found or os.access(path, os.R_OK)
    except PermissionError:
        readable = False
    if not readable:
        raise ConfigError(
            f"key '{path}' belongs to somebody else: 'chown -R USER {path.parent}', "
            "with the user who runs this"
        )
    if not found:
        raise ConfigError(f"there is no key '{path}': '{remedy}' makes keys")
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            f"others may read the secret key '{path}': 'chmod 600 {path}', and if "
            "somebody did, make new keys"
        )
    _refuse_writable(path.parent)
    public, secret = _load(path)
    if secret is None:
        raise ConfigError(f"'{path}' holds no secret key: make new keys")
    return KeyPair(public, secret)


def _refuse_writable(folder: Path) -> None:
    """Refuse keys that other users may add to or replace, as ssh does.

    Raises
    ------
    ConfigError
        The folder, or one in it that others reach, can be written by others, or they
        may replace one of the folders above it.
    """
    inner = [folder, *(folder / name for name in FOLDERS.values())]
    for path in inner if _mode(folder) & _TRAVERSABLE else [folder]:
        if _mode(path) & (stat.S_IWGRP | stat.S_IWOTH):
            raise ConfigError(
                f"others may write to the keys' folder '{path}': 'chmod go-w {path}', "
                "and remove keys that you did not add"
            )
    for path in resolved(folder).parents:
        mode = _mode(path)
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise ConfigError(
                f"everybody may replace the keys' folder '{folder}', as everybody may "
                f"write to '{path}': 'chmod o-w {path}', or move the keys"
            )


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def _public(path: Path) -> bytes:
    return _load(path)[0]


def _load(path: Path) -> tuple[bytes, bytes | None]:
    import zmq.auth

    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_KEY_BYTES:
            raise ValueError("no file of a key")
        return zmq.auth.load_certificate(path)
    except OSError as error:
        raise ConfigError(f"key '{path}' cannot be read: {error.strerror}") from error
    except (ValueError, IndexError) as error:
        raise ConfigError(
            f"'{path}' is not a key: make new keys, or remove it"
        ) from error

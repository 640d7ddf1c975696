"""Folders of CURVE keys: an engine's own, and those that it hands to its clients.

ENGINE/server.key_secret        the engine's secret; only its user may read it
ENGINE/server.key               its public part, which every client needs
ENGINE/readers/NAME.key         who may subscribe and ask for what was missed
ENGINE/controllers/NAME.key     who may steer as well
CLIENT/client.key_secret        what a client gets: its own secret,
CLIENT/server.key               and the engine whom it is to trust

The files are ZeroMQ certificates (docs/security.md).
"""

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from neurovocal.engine.contracts.errors import ConfigError

if TYPE_CHECKING:
    import zmq

Role: TypeAlias = Literal["read", "control"]

SERVER = "server"
CLIENT = "client"
FOLDERS: dict[Role, str] = {"read": "readers", "control": "controllers"}
_NAME = re.compile(r"[\w][\w.-]{0,63}")
_PRIVATE = 0o700


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Public and secret key, as ZeroMQ writes them (Z85, 40 characters)."""

    public: bytes
    secret: bytes


def make_engine_keys(folder: Path) -> None:
    """Make an engine's key pair, and room for its clients'.

    Raises
    ------
    ConfigError
        There are keys already, or the folder cannot be written.
    """
    import zmq.auth

    if (folder / f"{SERVER}.key_secret").exists():
        raise ConfigError(f"'{folder}' holds keys already; they are left as they are")
    try:
        folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        folder.chmod(_PRIVATE)
        for name in FOLDERS.values():
            (folder / name).mkdir(exist_ok=True)
        zmq.auth.create_certificates(folder, SERVER)
        (folder / f"{SERVER}.key_secret").chmod(0o600)
    except OSError as error:
        raise ConfigError(f"'{folder}' cannot be written: {error.strerror}") from error


def add_client(engine: Path, name: str, role: Role, out: Path) -> None:
    """Make a client's keys into `out`, and let it in.

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


def remove_client(engine: Path, name: str) -> None:
    """Let a client in no more; a running engine notices at its next connection.

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
    """Names and roles of the clients that are let in."""
    return sorted(
        (path.stem, role)
        for role, folder in FOLDERS.items()
        for path in (engine / folder).glob("*.key")
    )


def engine_keys(folder: Path) -> KeyPair:
    """The engine's own keys.

    Raises
    ------
    ConfigError
        There are none, they cannot be read, or others may read the secret.
    """
    return _pair(folder / f"{SERVER}.key_secret", f"neurovocal keys new {folder}")


def key_problems(folder: Path) -> list[str]:
    """What is wrong with an engine's keys, as sentences."""
    try:
        engine_keys(folder)
    except ConfigError as error:
        return str(error).split("\n")
    return []


def allowed_keys(folder: Path, role: Role) -> frozenset[bytes]:
    """Public keys that may do what `role` may; who may steer may listen, too."""
    roles: list[Role] = ["control"] if role == "control" else ["read", "control"]
    found = set()
    for one in roles:
        for path in (folder / FOLDERS[one]).glob("*.key"):
            try:
                found.add(_public(path))
            except ConfigError:
                continue  # a file that is being written, or is none of ours
    return frozenset(found)


def use_client_keys(zmq_socket: "zmq.Socket[bytes]", folder: str | Path) -> None:
    """Encrypt a connection that is to be made, and prove who makes it.

    Parameters
    ----------
    zmq_socket : Socket
        Not connected yet.
    folder : path
        What ``neurovocal keys add`` made for this client.

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
    public, secret = _load(path)
    if secret is None:
        raise ConfigError(f"'{path}' holds no secret key: make new keys")
    return KeyPair(public, secret)


def _public(path: Path) -> bytes:
    return _load(path)[0]


def _load(path: Path) -> tuple[bytes, bytes | None]:
    import zmq.auth

    try:
        return zmq.auth.load_certificate(path)
    except (OSError, ValueError, IndexError, UnicodeDecodeError) as error:
        raise ConfigError(f"key '{path}' cannot be read: {error}") from error

"""Files are detected, labelled and run where modules of POSIX are absent."""

import ast
import os
import subprocess
import sys

import pytest
from repository import ROOT

DOOR = ROOT / "engine" / "support" / "platform.py"
# Modules of the standard library that Windows lacks.
ABSENT = {
    *("fcntl", "grp", "posix", "pty", "pwd", "resource", "spwd", "syslog", "termios"),
    *("tty", "readline", "nis", "crypt", "ossaudiodev"),
}
# Functions of `os`, `select`, `signal` and `socket` that Windows lacks.
LACKING = {
    "os": {
        *(
            "O_CLOEXEC",
            "O_DIRECTORY",
            "pread",
            "pwrite",
            "O_NOFOLLOW",
            "O_NONBLOCK",
            "chown",
            "fork",
        ),
        *("getpgid", "geteuid", "getuid", "killpg", "mkfifo", "posix_fallocate"),
        *("sched_getaffinity", "setsid", "statvfs", "sysconf", "uname", "nice"),
    },
    "time": {"CLOCK_BOOTTIME", "CLOCK_MONOTONIC", "clock_gettime_ns", "clock_gettime"},
    "select": {"poll", "epoll", "kqueue"},
    "signal": {"SIGHUP", "SIGKILL", "SIGUSR1", "SIGALRM", "setitimer", "alarm"},
    "socket": {"AF_UNIX", "SO_REUSEPORT"},
}
# Only reached on Linux, or where the user names what only POSIX systems have.
ALLOWED = {
    "engine/runtime/systemd.py": {"AF_UNIX"},  # NOTIFY_SOCKET is set
    "plugins/storage/file_lock.py": {"AF_UNIX"},  # locks of folders, on Linux
    "plugins/zeromq/endpoint.py": {"AF_UNIX"},  # ipc:// endpoints
    "plugins/zeromq/listener.py": {"AF_UNIX", "O_CLOEXEC"},  # limits, on Linux
}

# Run before anything else: the modules cannot be imported, the names do not exist.
HIDING = f"""
import importlib.abc, os, select, signal, socket, sys, threading, subprocess, shutil
import selectors, time, asyncio, multiprocessing.util, tempfile, zipfile, ctypes

class Hiding(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in {sorted(ABSENT)!r}:
            raise ModuleNotFoundError(f"No module named '{{name}}'", name=name)

sys.meta_path.insert(0, Hiding())
HIDDEN = {sorted(ABSENT - {"posix"})!r}
for name in HIDDEN:
    sys.modules.pop(name, None)
for module, names in {LACKING!r}.items():
    # Python itself needs those where it runs on POSIX.
    for name in names - {{"sysconf", "uname", "statvfs", "AF_UNIX"}}:
        if hasattr(sys.modules[module], name):
            delattr(sys.modules[module], name)
"""


def product_files():
    for package in ("engine", "plugins", "models"):
        yield from sorted((ROOT / package).rglob("*.py"))


def test_posix_modules_are_imported_behind_one_door():
    for path in product_files():
        if path == DOOR:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] not in ABSENT, f"{path}: {name}"


def test_posix_calls_stand_behind_the_door():
    for path in product_files():
        allowed = ALLOWED.get(path.relative_to(ROOT).as_posix(), set())
        if path == DOOR:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                lacking = LACKING.get(node.value.id, set())
                where = f"{path}:{node.lineno}: {node.value.id}.{node.attr}"
                assert node.attr not in lacking - allowed, where


def hidden(code, folder, *arguments):
    """Run code in a process in which the modules and names are absent."""
    return subprocess.run(
        [sys.executable, "-c", HIDING + code, *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )


def command(folder, *arguments):
    """Run `neurovocal ARGUMENTS` there, and return its output."""
    code = """
from neurovocal.engine.support import platform
platform.IS_LINUX = False
from neurovocal.engine.cli import main
main(sys.argv[1:])
"""
    done = hidden(code, folder, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_modules_are_really_hidden(tmp_path):
    code = "\nimport fcntl\n"
    assert "No module named 'fcntl'" in hidden(code, tmp_path).stderr
    code = "\nassert not hasattr(os, 'killpg') and not hasattr(select, 'poll')\n"
    assert hidden(code, tmp_path).returncode == 0


def test_every_module_of_the_product_can_be_imported(tmp_path):
    names = []
    for path in product_files():
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(("neurovocal", *parts))
        if parts[0] != "models":  # training needs torch, which has its own systems
            names.append(name.removesuffix(".__init__"))
    code = f"""
import importlib
failed = []
for name in {names!r}:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name in HIDDEN or error.name.startswith("neurovocal"):
            failed.append((name, error))
    except Exception as error:
        failed.append((name, error))
assert not failed, failed
"""
    done = hidden(code, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def recording():
    return ROOT / "configs" / "recordings" / "bengalese-finch.flac"


def test_detect_and_label_give_the_same_tables(tmp_path, recording):
    for arguments in (
        ("detect", recording, "--out", "-"),
        ("label", recording, "--out", "-"),
    ):
        here = subprocess.run(
            [
                *(sys.executable, "-c"),
                "from neurovocal.engine.cli import main; main()",
                *map(str, arguments),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        assert command(tmp_path, *arguments) == here.stdout
        assert len(here.stdout.splitlines()) > 100


def test_a_configuration_runs_with_files_page_and_socket(tmp_path, recording):
    (tmp_path / "c.yaml").write_text(f"""\
version: 1
source: {{plugin: file, options: {{path: {recording.as_posix()}}}}}
bundle: bengalese-finch
models: [{{plugin: classifier}}]
sinks:
  - {{plugin: jsonl, options: {{path: events.jsonl}}}}
  - {{plugin: table, options: {{path: labels.csv}}}}
  - {{plugin: journal, options: {{path: j.sqlite}}}}
  - {{plugin: clips, options: {{path: clips}}}}
  - {{plugin: zmq, options: {{endpoint: "tcp://127.0.0.1:*"}}}}
  - {{plugin: web, options: {{endpoint: "127.0.0.1:0"}}}}
""")
    command(tmp_path, "check", "c.yaml")
    command(tmp_path, "run", "c.yaml", "--plain")
    assert len((tmp_path / "labels.csv").read_text().splitlines()) > 100
    assert any((tmp_path / "clips").rglob("*.wav")) or any(
        (tmp_path / "clips").rglob("*.flac")
    )
    command(tmp_path, "export", "j.sqlite", "--out", "again.csv")
    assert len((tmp_path / "again.csv").read_text().splitlines()) > 100

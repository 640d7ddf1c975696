"""Scans with real worker processes and servers, which are killed for real."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from bundles.tiny_bundle import make_tiny_bundle
from datasets.archives import InlineCluster, contents, make_archive, rows
from processes.cli_process import NEUROVOCAL, Done, running
from processes.waiting import PROCESS_S, until

from neurovocal.models.scan.cluster import open_cluster
from neurovocal.models.scan.command import make_job
from neurovocal.models.scan.recordings import find_inputs
from neurovocal.models.scan.results import Results
from neurovocal.models.scan.scan import Counts, make_tasks, run_tasks

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    make_tiny_bundle(folder / "bundle", rnn_rbm=False)
    make_archive(folder / "archive", n_days=4, repeat=6)
    return folder


@pytest.fixture(scope="module")
def expected(folder: Path) -> Path:
    """Return the results that one process writes without a cluster."""
    job = make_job(str(folder / "bundle"), None, None, None, None)
    inputs = find_inputs([str(folder / "archive")])
    results = Results(folder / "expected", {**job.provenance, "task_mib": 1})
    results.open()
    tasks = make_tasks(inputs, set(), 1 << 20, None)
    run_tasks(tasks, InlineCluster(job), results, Counts(16, 1), lambda _: None)
    results.write_bad({})
    results.close()
    return results.folder


def arguments(folder: Path, out: Path, *more: object) -> list[object]:
    bundle = folder / "bundle"
    given = ["--bundle", bundle, "--out", out, "--task-size", 1]
    return ["scan", folder / "archive", *given, *more]


def scan(folder: Path, out: Path, *more: object) -> Done:
    return ended(*arguments(folder, out, *more))


def ended(*given: object) -> Done:
    """Run a command to its end, on however busy a machine."""
    with running(*given) as process:
        out, told = process.communicate(timeout=PROCESS_S)
    return Done(process.returncode, out, told)


def children(pid: int) -> list[int]:
    """Return the processes that a process has started, workers among them."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True
    ).stdout
    return [int(each) for each in listed.split()] if path.parent.exists() else []


def workers_of(pid: int) -> list[int]:
    """Return the worker processes among a scan's children."""
    found = []
    for child in children(pid):
        with suppress(OSError):
            command = Path(f"/proc/{child}/cmdline").read_bytes()
            if b"spawn_main" in command:
                found.append(child)
    return found


def listening(pid: int) -> list[str]:
    """Return the addresses at which a scan and its workers listen."""
    listed = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True).stdout
    pids = [f"pid={each}," for each in [pid, *children(pid)]]
    lines = [line for line in listed.splitlines() if any(p in line for p in pids)]
    return [line.split()[3] for line in lines]


def begun(process: subprocess.Popen, out: Path, n_before: int) -> None:
    """Wait until a scan has finished more tasks; it takes as long as it takes."""
    while finished(out) <= n_before:
        assert process.poll() is None, "it ended before a task was finished"
        threading.Event().wait(0.01)


def finished(out: Path) -> int:
    return len(list((out / "recordings").glob("[0-9a-f]*.parquet")))


def test_a_result_that_is_lost_with_its_worker_is_computed_again(folder):
    job = make_job(str(folder / "bundle"), None, None, None, None)
    inputs = find_inputs([str(folder / "archive")])
    task = next(make_tasks(inputs, set(), 1 << 20, None))
    with open_cluster(job, 1, None) as cluster:
        cluster.submit(task)
        until(lambda: not cluster._finished.empty())
        ((future, _),) = cluster._running.values()
        # It has ended, but nobody has fetched the result from its worker yet.
        killed = workers_of(os.getpid())
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        until(lambda: future.status == "lost")
        ended = None
        while ended is None:
            ended = cluster.next(0.2)
    assert killed
    assert ended[0] == task
    assert len(ended[1].recordings) == len(task.inputs)


def test_killed_workers_lose_nothing(folder, expected, tmp_path):
    out = tmp_path / "out"
    with running(*arguments(folder, out, "--workers", 2)) as process:
        begun(process, out, 0)
        killed = workers_of(process.pid)
        addresses = listening(process.pid)
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        _, told = process.communicate(timeout=PROCESS_S)
    assert killed
    assert process.returncode == 0, told
    assert contents(out) == contents(expected)
    assert "segments of 16 recordings" in told
    assert all(len(line) <= 80 for line in told.splitlines() if "/" not in line)
    assert addresses
    assert all(address.startswith("127.0.0.1:") for address in addresses)


@pytest.mark.long
def test_a_scan_that_is_ended_continues(folder, expected, tmp_path):
    out = tmp_path / "out"
    ended_by(signal.SIGKILL, folder, out, n_before=0)
    process, told = ended_by(signal.SIGINT, folder, out, n_before=finished(out))
    assert process.returncode == 3
    assert re.search(r"stopped: \d+ of 16 recordings are left; the same", told)
    assert "Traceback" not in told
    done = scan(folder, out, "--workers", 1)
    assert done.code == 0, done.err
    assert contents(out) == contents(expected)


def ended_by(
    number: int, folder: Path, out: Path, n_before: int
) -> tuple[subprocess.Popen, str]:
    """Start a scan, and end it by a signal once it has finished one task more."""
    with running(*arguments(folder, out, "--workers", 2)) as process:
        begun(process, out, n_before)
        workers = workers_of(process.pid)
        process.send_signal(number)
        _, told = process.communicate(timeout=PROCESS_S)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    assert finished(out) < 16
    return process, told


@contextmanager
def scheduler(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen, list]]:
    """Start a Dask scheduler with two workers of its own, as a cluster has."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    options = ["--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
    started = [subprocess.Popen([*dask, *options], cwd=tmp_path, **quiet)]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", address]
    options = ["--nthreads", "1", "--no-dashboard", "--no-nanny"]
    started += [
        subprocess.Popen([*worker, *options], cwd=tmp_path, **quiet) for _ in range(2)
    ]
    try:
        yield address, started[0], started[1:]
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.long
def test_a_cluster_writes_the_same_bytes_and_may_lose_its_scheduler(
    folder, expected, tmp_path
):
    out = tmp_path / "out"
    with scheduler(tmp_path) as (address, process, _):
        given = arguments(folder, out, "--scheduler", address)
        with running(*given) as scanning:
            begun(scanning, out, 0)
            process.kill()
            _, told = scanning.communicate(timeout=PROCESS_S)
        assert scanning.returncode == 2, told
        assert re.search(r"the scheduler .*: \d+ of 16 recordings are left", told)
        assert "Traceback" not in told
    with scheduler(tmp_path) as (address, _, workers):
        workers[0].kill()  # one worker less than the cluster had
        done = scan(folder, out, "--scheduler", address)
    assert done.code == 0, done.err
    assert contents(out) == contents(expected)


def test_a_scheduler_that_is_not_there_is_one_sentence(folder, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    done = scan(folder, tmp_path / "out", "--scheduler", f"tcp://127.0.0.1:{port}")
    assert done.code == 1
    assert "no Dask scheduler answers" in done.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("address", "reason"),
    [("foo", "it is no address"), ("tcp://no.such.invalid:1", "its host is not known")],
)
def test_an_address_that_cannot_be_one_is_told_at_once(
    folder, tmp_path, address, reason
):
    done = scan(folder, tmp_path / "out", "--scheduler", address)
    assert done.code == 1
    assert f"'{address}': {reason}" in done.err.splitlines()[-1]
    assert "Traceback" not in done.err


def test_a_web_server_that_is_not_there_is_told(folder, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for path in ("", "*.wav"):
        given = ["scan", f"http://127.0.0.1:{port}/{path}", "--out", tmp_path / "out"]
        done = ended(*given)
        assert done.code == 1
        assert "cannot be listed: Cannot connect" in done.err


def test_ctrl_c_while_workers_start_is_quiet(folder, tmp_path):
    out = tmp_path / "out"
    with running(
        *arguments(folder, out, "--workers", 2), start_new_session=True
    ) as process:
        until(lambda: len(workers_of(process.pid)) == 2)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, told = process.communicate(timeout=PROCESS_S)
    assert process.returncode == 3
    assert "Traceback" not in told
    assert "16 of 16 recordings are left" in told


@pytest.mark.long
def test_recordings_of_a_web_server(folder, expected, tmp_path):
    handler = partial(SimpleHTTPRequestHandler, directory=folder / "archive")
    SimpleHTTPRequestHandler.log_message = lambda *arguments: None
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        done = ended(
            *["scan", f"{url}/ST0/", f"{url}/ST1/*_20210510_*.wav"],
            *["--bundle", folder / "bundle", "--out", tmp_path / "out"],
            *["--workers", 1],
        )
    finally:
        server.shutdown()
        server.server_close()
    assert done.code == 0, done.err
    found = rows(tmp_path / "out")
    names = {row["recording"] for row in found}
    assert len(names) == 10
    assert all(name.startswith(url) for name in names)

    def key(row: dict) -> tuple:
        name = Path(row["recording"]).name
        return name, row["onset"], row["label"], row["posterior"], row["onset_utc"]

    wanted = {key(row) for row in rows(expected)}
    assert {key(row) for row in found} <= wanted


def test_a_missing_extra_is_one_sentence(tmp_path):
    code = (
        "import sys; sys.modules['distributed'] = None\n"
        "from neurovocal.engine.cli import main; main()"
    )
    command = [*NEUROVOCAL[:-1], code, "scan", "x.wav", "--out", str(tmp_path / "o")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'neurovocal[scan]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1

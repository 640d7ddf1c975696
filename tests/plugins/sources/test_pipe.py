"""Pipe source: real programs and pipes, and all ways in which they end."""

import io
import json
import os
import pty
import select
import shutil
import subprocess
import sys
import threading
import warnings
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from processes.waiting import PATIENCE_S, PROCESS_S

from neurovocal.engine.contracts.clock import NS, ManualClock, SystemClock
from neurovocal.engine.contracts.errors import (
    ConfigError,
    Disconnected,
    EndOfStream,
    StageError,
)
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import Anchor, Block, Gap, StreamInfo
from neurovocal.plugins.sources.pipe import command as pipe_command
from neurovocal.plugins.sources.pipe.pcm import PcmDecoder, SampleFormat
from neurovocal.plugins.sources.pipe.source import plugin

RATE = 16_000
PYTHON = sys.executable


def make(clock=None, **options):
    context = BuildContext(clock or SystemClock(), "run", stream="lane")
    return plugin.build(plugin.options(sample_rate=RATE, **options), context)


def problems(**options):
    context = BuildContext(ManualClock(), "run")
    return list(plugin.check(plugin.options(sample_rate=RATE, **options), context))


@pytest.fixture
def patient(monkeypatch):
    """Let a program that has closed its output take its time to end."""
    monkeypatch.setattr(pipe_command, "_GRACE_S", PATIENCE_S)


def read_to_end(source):
    items = []
    while True:
        try:
            item = source.read(10)
        except EndOfStream:
            return items
        if item is not None:
            items.append(item)


def samples_of(items):
    return np.concatenate([item.samples for item in items if isinstance(item, Block)])


def writing_command(path, status=0, stderr=""):
    """Return a command that writes a file to its output and exits with a status."""
    code = "import shutil, sys; shutil.copyfileobj(open(sys.argv[1], 'rb'), "
    code += "sys.stdout.buffer); sys.stdout.flush(); sys.stderr.write(sys.argv[2]); "
    code += "sys.exit(int(sys.argv[3]))"
    return [PYTHON, "-c", code, str(path), stderr, str(status)]


@pytest.fixture
def pcm(tmp_path):
    """Write a file of raw samples; return it with the samples."""
    values = np.arange(-20_000, 20_000, dtype="<i2").reshape(-1, 2)
    path = tmp_path / "samples.raw"
    path.write_bytes(values.tobytes())
    return path, values.astype(np.float32) / 32768


# ---- bytes to samples -----------------------------------------------------------

SUBTYPES = {
    "u8": "PCM_U8",
    "s8": "PCM_S8",
    "s16": "PCM_16",
    "s24": "PCM_24",
    "s32": "PCM_32",
    "f32": "FLOAT",
    "f64": "DOUBLE",
}


@pytest.mark.parametrize("sample_format", get_args(SampleFormat))
@given(cuts=st.lists(st.integers(1, 997), max_size=20))
def test_decoding_agrees_with_libsndfile_for_any_cuts(sample_format, cuts):
    values = np.random.default_rng(0).uniform(-1, 1, (83, 2)).astype(np.float32)
    buffer = io.BytesIO()
    form = {
        "format": "RAW",
        "subtype": SUBTYPES[sample_format.removesuffix("le").removesuffix("be")],
        "endian": "BIG" if sample_format.endswith("be") else "LITTLE",
    }
    soundfile.write(buffer, values, RATE, **form)
    raw = buffer.getvalue()
    buffer.seek(0)
    expected, _ = soundfile.read(
        buffer, dtype="float32", samplerate=RATE, channels=2, **form
    )
    decoder = PcmDecoder(sample_format, 2)
    edges = [0, *sorted(cut for cut in cuts if cut < len(raw)), len(raw)]
    parts = [decoder.decode(raw[a:b]) for a, b in pairwise(edges)]
    np.testing.assert_array_equal(np.concatenate(parts), expected)
    assert decoder.rest == 0


def test_doubles_that_floats_cannot_hold_are_infinite():
    with warnings.catch_warnings(action="error"):
        decoded = PcmDecoder("f64be", 1).decode(
            np.float64([1e300, -0.5]).astype(">f8").tobytes()
        )
    assert decoded[:, 0].tolist() == [np.inf, -0.5]


# ---- commands -------------------------------------------------------------------


@pytest.mark.parametrize("live", [True, False])
def test_the_output_of_a_command_is_read_to_its_end(pcm, live):
    path, values = pcm
    source = make(command=writing_command(path), channels_in=2, channels=[2], live=live)
    assert Registry().get("source", "pipe") is plugin
    assert source.info == StreamInfo("lane", RATE, 1)
    source.open()
    items = read_to_end(source)
    np.testing.assert_array_equal(samples_of(items), values[:, 1:])
    assert not any(isinstance(item, Gap) for item in items)
    # All at once: a burst whose clock has not settled has no time.
    assert not any(isinstance(item, Anchor) for item in items)
    with pytest.raises(EndOfStream):
        source.read(0)
    source.close()
    source.open()  # and once more
    np.testing.assert_array_equal(samples_of(read_to_end(source)), values[:, 1:])


def test_a_command_is_live_by_default():
    assert make(command="x").live is True
    assert make(command="x", live=False).live is False
    assert make().live is False
    assert make(live=True).live is True


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("live", [True, False])
def test_a_failing_command_is_reported_after_the_last_sample(pcm, live):
    path, values = pcm
    command = writing_command(path, status=3, stderr="no route to host\n\n")
    # More chatter than a pipe holds must neither block nor be kept.
    command[2] = "import sys; sys.stderr.write('chatter\\n' * 50_000); " + command[2]
    source = make(command=command, channels_in=2, live=live)
    source.open()
    count = 0
    while count < len(values):
        item = source.read(10)
        count += len(item.samples) if isinstance(item, Block) else 0
    with pytest.raises(Disconnected if live else StageError) as caught:
        read_to_end(source)
    name = os.path.basename(PYTHON)
    assert (
        str(caught.value) == f"command '{name}' ended with status 3: no route to host"
    )
    with pytest.raises(EndOfStream):
        source.read(0)


@pytest.mark.usefixtures("patient")
def test_a_killed_command_is_reported_with_its_signal():
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    source = make(command=[PYTHON, "-c", code])
    source.open()
    with pytest.raises(Disconnected, match="was ended by SIGKILL"):
        read_to_end(source)


def test_a_missing_command_is_refused(tmp_path):
    source = make(command="no-such-program --option")
    with pytest.raises(ConfigError, match="'no-such-program' cannot be run: No such"):
        source.open()
    source.close()
    assert problems(command="no-such-program -x") == [
        "command 'no-such-program' does not exist: install it or correct the name"
    ]
    assert "cannot be split" in problems(command="ffmpeg 'x")[0]
    assert problems(command="") == ["name a program"]


def test_close_ends_the_command_and_its_children(tmp_path):
    """Both hold the write end of a FIFO, which is at its end once both have exited."""
    os.mkfifo(tmp_path / "fifo")
    alive = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    code = """
import subprocess, sys, time
held = open(sys.argv[1], "wb")
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
subprocess.Popen(sleep, pass_fds=[held.fileno()])
sys.stdout.buffer.write(bytes(64))
sys.stdout.flush()
time.sleep(600)
"""
    source = make(command=[PYTHON, "-c", code, str(tmp_path / "fifo")])
    source.open()
    while not isinstance(source.read(10), Block):
        pass
    with pytest.raises(BlockingIOError):
        os.read(alive, 1)
    source.close()
    source.close()
    os.set_blocking(alive, True)
    assert os.read(alive, 1) == b""
    os.close(alive)
    assert read_to_end(source) == []


READ_COMMAND = f"""
import sys
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.plugins.sources.pipe.source import plugin

options = plugin.options(sample_rate={RATE}, command=sys.argv[1:])
source = plugin.build(options, BuildContext(SystemClock(), "run"))
source.open()
print("open", flush=True)
sys.stdin.read()
"""


def test_a_command_that_hangs_ends_with_a_killed_engine(tmp_path):
    """The command holds the write end of a FIFO, which ends once it has exited."""
    os.mkfifo(tmp_path / "fifo")
    alive = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    code = "import sys, time; held = open(sys.argv[1], 'wb'); held.write(b'x'); "
    code += "held.flush(); time.sleep(600)"
    hanging = [PYTHON, "-c", code, str(tmp_path / "fifo")]
    engine = subprocess.Popen(
        [PYTHON, "-c", READ_COMMAND, *hanging],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert engine.stdout.readline() == b"open\n"
    select.select([alive], [], [])
    assert os.read(alive, 1) == b"x"
    engine.kill()
    engine.communicate()
    os.set_blocking(alive, True)
    assert os.read(alive, 1) == b""
    os.close(alive)


@pytest.mark.usefixtures("patient")
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_ffmpeg(tmp_path):
    values = np.random.default_rng(1).uniform(-0.5, 0.5, (RATE, 1)).astype(np.float32)
    soundfile.write(tmp_path / "x.flac", values, RATE, subtype="PCM_24")
    command = f"ffmpeg -v error -i '{tmp_path}/x.flac' -f f32le -"
    source = make(command=command, sample_format="f32le", live=False)
    source.open()
    np.testing.assert_allclose(samples_of(read_to_end(source)), values, atol=1e-6)
    source = make(command=command.replace("x.flac", "y.flac"), sample_format="f32le")
    source.open()
    with pytest.raises(Disconnected, match=r"command 'ffmpeg' .*: .*No such file"):
        read_to_end(source)


# ---- what comes through -----------------------------------------------------------


def test_an_incomplete_last_sample_is_ignored_and_noted(pcm):
    path, values = pcm
    path.write_bytes(path.read_bytes()[:-1])
    source = make(
        command=writing_command(path), channels_in=2, channels=[1, 2], live=False
    )
    source.open()
    np.testing.assert_array_equal(samples_of(read_to_end(source)), values[:-1])
    (notice,) = source.notices
    assert "its last 3 bytes are ignored" in notice


def test_non_finite_samples_become_a_gap(tmp_path):
    values = np.ones(100, "<f4")
    values[50] = np.nan
    path = tmp_path / "x.raw"
    path.write_bytes(values.tobytes())
    source = make(command=writing_command(path), sample_format="f32le", live=False)
    source.open()
    assert Gap(50, 51, "not a number") in read_to_end(source)


def test_live_an_overrun_is_a_gap_and_counted(tmp_path):
    values = np.random.default_rng(0).integers(-9999, 9999, 3 * RATE, np.int16)
    path = tmp_path / "x.raw"
    path.write_bytes(values.tobytes())
    source = make(command=writing_command(path), buffer_s=0.5)
    source.open()
    # The reader is busy until all samples have come: the ring's writer does not wait.
    ended = threading.Event()
    while source.counts.received < len(values):
        ended.wait(0.01)
    items = read_to_end(source)
    gap = items[0]
    assert gap == Gap(0, len(values) - RATE // 2, "overrun")
    np.testing.assert_array_equal(
        samples_of(items)[:, 0], values[gap.stop :].astype(np.float32) / 32768
    )
    counts = source.counts
    assert counts.received == counts.delivered + counts.dropped == len(values)


def test_live_a_backlog_longer_than_the_ring_is_read_without_loss(tmp_path):
    """This happens after a stall of the network or at the start of a server's burst."""
    values = np.random.default_rng(0).integers(-9999, 9999, 60 * RATE, np.int16)
    path = tmp_path / "x.raw"
    path.write_bytes(values.tobytes())
    source = make(command=writing_command(path), buffer_s=2, block_length=500)
    source.open()
    items = read_to_end(source)
    assert not [item for item in items if isinstance(item, Gap)]
    np.testing.assert_array_equal(
        samples_of(items)[:, 0], values.astype(np.float32) / 32768
    )
    assert source.counts.dropped == source.counts.lost == 0


def test_not_live_the_writer_waits_and_no_sample_is_lost(tmp_path):
    values = np.random.default_rng(0).integers(-9999, 9999, 20 * RATE, np.int16)
    path = tmp_path / "x.raw"
    path.write_bytes(values.tobytes())
    source = make(command=writing_command(path), live=False, block_length=1000)
    source.open()
    items = read_to_end(source)
    assert max(len(item.samples) for item in items) <= 1000
    np.testing.assert_array_equal(
        samples_of(items)[:, 0], values.astype(np.float32) / 32768
    )


def test_live_a_stalled_writer_is_a_disconnection():
    clock = ManualClock()
    code = "import sys, time; sys.stdout.buffer.write(bytes(200)); "
    code += "sys.stdout.flush(); time.sleep(600)"
    source = make(clock, command=[PYTHON, "-c", code], stall_timeout_s=5)
    source.open()
    items = []
    while sum(len(i.samples) for i in items if isinstance(i, Block)) < 100:
        if (item := source.read(1)) is not None:
            items.append(item)
    clock.advance(4.9)
    assert source.read(0) is None
    clock.advance(0.2)
    with pytest.raises(Disconnected, match=r"has delivered nothing for 5\.1 s"):
        source.read(0)
    source.close()


def test_a_burst_has_no_anchor_before_its_clock_has_settled(pcm):
    clock = ManualClock(utc_ns=1_000 * NS)
    clock.advance(100)
    source = make(clock, command=writing_command(pcm[0]), channels_in=2)
    source.open()
    assert not any(isinstance(item, Anchor) for item in read_to_end(source))
    assert 98 * NS < source.captured_ns(0) < 100 * NS


def test_not_live_the_anchor_comes_from_start_utc(pcm):
    source = make(
        command=writing_command(pcm[0]),
        channels_in=2,
        live=False,
        start_utc="1970-01-01T01:00Z",
    )
    source.open()
    assert source.read(PATIENCE_S) == Anchor(0, 3600 * NS)


def test_channels_are_checked():
    assert "there is no channel 3" in problems(channels=[3], channels_in=2)[0]
    assert "twice" in problems(channels=[1, 1])[0]
    assert problems(channels=[2, 1], channels_in=2) == []
    assert plugin.resources(plugin.options(sample_rate=RATE)) == {"stdin"}
    claims = plugin.resources(plugin.options(sample_rate=RATE, command="x"))
    assert claims == frozenset()


# ---- standard input ---------------------------------------------------------------

READ_STDIN = f"""
import json, sys
import numpy as np
from neurovocal.engine.contracts.errors import EndOfStream, NeurovocalError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.types import Block
from neurovocal.plugins.sources.pipe.source import plugin

options = plugin.options(sample_rate={RATE}, live=json.loads(sys.argv[1]))
source = plugin.build(options, BuildContext(SystemClock(), "run"))
values = []
try:
    source.open()
    while True:
        item = source.read(1.0)
        if isinstance(item, Block):
            values.append(item.samples)
except EndOfStream:
    source.close()
    np.save(sys.argv[2], np.concatenate(values))
except NeurovocalError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize("live", [True, False])
def test_standard_input(tmp_path, live):
    values = np.arange(-9000, 9000, dtype="<i2")
    arguments = [PYTHON, "-c", READ_STDIN, json.dumps(live), str(tmp_path / "x.npy")]
    subprocess.run(arguments, input=values.tobytes(), check=True, timeout=PROCESS_S)
    got = np.load(tmp_path / "x.npy")[:, 0]
    np.testing.assert_array_equal(got, values.astype(np.float32) / 32768)


def test_nothing_on_standard_input_is_noted(monkeypatch):
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        source = make(live=False)
        source.open()
        assert read_to_end(source) == []
    assert source.notices == [
        "nothing came on standard input: did the program before the pipe fail?"
    ]


def test_a_terminal_as_standard_input_is_refused():
    leader, follower = pty.openpty()
    done = subprocess.run(
        [PYTHON, "-c", READ_STDIN, "false", "x"],
        stdin=follower,
        stderr=subprocess.PIPE,
        text=True,
        timeout=PROCESS_S,
        check=False,
    )
    os.close(leader)
    os.close(follower)
    assert done.returncode == 1
    assert done.stderr.startswith("standard input is a terminal")

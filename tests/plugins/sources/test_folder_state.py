"""State file of a folder source: kills, incomplete lines, changed recordings."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stages.folder_source import (
    health_of,
    make,
    names,
    read_all,
    read_confirmed,
    statuses,
    write,
)

from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import Block
from neurovocal.plugins.sources.folder.source import STATE, plugin


def test_a_locked_or_foreign_state_file_is_refused(tmp_path):
    first = make(tmp_path, follow=True)
    first.open()
    with pytest.raises(ConfigError, match="in use: another engine takes these"):
        make(tmp_path).open()
    first.close()
    state = tmp_path / "x.jsonl"
    state.write_text('{"something": "else"}\n')
    with pytest.raises(ConfigError, match="is not the state of a folder source"):
        make(tmp_path, state=str(state)).open()
    missing = make(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="does not exist"):
        missing.open()


READ = """
import sys
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.types import Block, StreamEnd, StreamInfo
from neurovocal.plugins.sources.folder.source import plugin
options = plugin.options(path=sys.argv[1], confirm_s=0, settle_s=0, follow=False)
source = plugin.build(options, BuildContext(ManualClock(), "run"))
source.open()
while True:
    item = source.read(0.5)
    if isinstance(item, StreamInfo):
        stream = item.stream
    elif isinstance(item, StreamEnd):
        source.confirm(item, True)
    elif isinstance(item, Block):
        print(stream, item.stop, flush=True)
        sys.stdin.readline()
"""


def test_a_kill_loses_no_recording_and_repeats_at_most_one(tmp_path):
    n_files, n_samples = 12, 20_000
    for number in range(n_files):
        write(tmp_path / f"{number}.wav", n_samples)
    runs = []
    for lines in (4, 9, 1, 12):  # killed when it has read so many blocks
        process = subprocess.Popen(
            [sys.executable, "-c", READ, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        reports = []
        while len(reports) < lines:
            reports.append(process.stdout.readline().split())
            if len(reports) < lines:
                process.stdin.write("\n")
        process.kill()
        process.communicate()
        runs.append([name for name, stop in reports if int(stop) == n_samples])
    runs.append(names(read_all(make(tmp_path))))
    whole = [name for run in runs for name in run]
    assert set(whole) == {f"{number}.wav" for number in range(n_files)}
    assert len(whole) <= n_files + 4  # each kill repeats at most one
    assert all(len(run) == len(set(run)) for run in runs)


@settings(deadline=None, max_examples=30)
@given(torn=st.integers(0, 700))
def test_an_incomplete_last_line_of_the_state_is_cut_off(tmp_path_factory, torn):
    folder = tmp_path_factory.mktemp("card")
    for name in ("a", "b"):
        write(folder / f"{name}.wav", 80)
    read_all(make(folder))
    state = folder / STATE
    whole = state.read_bytes()
    assert statuses(whole) == {"a.wav": "taken", "b.wav": "taken"}
    state.write_bytes(whole[: len(whole) - torn])
    left = whole[: whole.rfind(b"\n", 0, len(whole) - torn) + 1]
    items = read_all(make(folder))
    expected = [n for n in ("a.wav", "b.wav") if statuses(left).get(n) != "taken"]
    assert names(items) == expected
    assert statuses(state.read_bytes()) == {"a.wav": "taken", "b.wav": "taken"}


def test_a_state_whose_first_sector_a_loss_of_power_has_zeroed_is_used(
    tmp_path, caplog
):
    for name in ("a.wav", "b.wav"):
        write(tmp_path / name, 80)
    read_all(make(tmp_path))
    state = tmp_path / STATE
    whole = state.read_bytes()
    first_line = whole.index(b"\n")
    state.write_bytes(bytes(first_line) + whole[first_line:])
    write(tmp_path / "c.wav", 80, seed=1)
    caplog.clear()
    assert names(read_all(make(tmp_path)))[-1] == "c.wav"
    assert "lines are damaged and left out" in caplog.text
    state.write_bytes(bytes(len(whole)))
    assert names(read_all(make(tmp_path))) == ["a.wav", "b.wav", "c.wav"]


def test_a_recording_that_grows_after_it_was_finished_is_read_again(tmp_path):
    path = write(tmp_path / "x.wav")
    longer = write(tmp_path / ".longer.wav", 1600).read_bytes()
    source = make(tmp_path, follow=True, confirm_s=5)
    source.open()
    items = []
    for _ in range(60):
        item = read_confirmed(source)
        items += [item] if item is not None else []
        if isinstance(item, Block):
            path.write_bytes(longer)
    source.close()
    sentence, again, over = [detail for _, detail in health_of(items)]
    assert "is another recording than the one of this name before" in again
    assert "has changed after it was finished: it is heard again" in sentence
    assert "can be used again" in over
    assert names(items) == ["x.wav", "x.wav"]
    assert [len(item.samples) for item in items if isinstance(item, Block)] == [
        800,
        1600,
    ]
    assert read_all(make(tmp_path)) == []


def test_a_recording_is_identified_by_its_content(tmp_path):
    """Memory cards return with other times; recorders use names again."""
    path = write(tmp_path / "REC1.wav", 80_000)
    assert names(read_all(make(tmp_path))) == ["REC1.wav"]
    os.utime(path, (1, 1))  # the same, on a card that was copied or is in summer time
    assert read_all(make(tmp_path)) == []
    path.rename(tmp_path / "archived.wav")
    assert read_all(make(tmp_path)) == []
    shutil.copy2(tmp_path / "archived.wav", tmp_path / "copy.wav")
    assert names(read_all(make(tmp_path))) == ["copy.wav"]
    write(path, 80_000, seed=1)  # as long as the one before
    items = read_all(make(tmp_path))
    assert names(items) == ["REC1.wav"]
    assert health_of(items) == [
        (
            "healthy",
            f"'{path}' is another recording than the one of this name before",
        )
    ]
    write(path, 4000, seed=2)
    assert names(read_all(make(tmp_path))) == ["REC1.wav"]
    assert read_all(make(tmp_path)) == []


def test_a_state_file_of_an_earlier_version_is_read(tmp_path):
    path = write(tmp_path / "a.wav")
    stat = path.stat()
    entry = {"file": "a.wav", "size": stat.st_size, "mtime_ns": 1, "verdict": "taken"}
    (tmp_path / STATE).write_text(json.dumps(entry) + "\n")
    assert read_all(make(tmp_path)) == []


def test_the_next_run_reports_a_recording_that_a_kill_interrupted(tmp_path):
    path = write(tmp_path / "a.wav", 20_000)
    first = make(tmp_path)
    first.open()
    while not isinstance(first.read(0.5), Block):
        pass
    os.close(first._processed._fd)  # all that a kill leaves: the file, and no lock
    context = BuildContext(ManualClock(), "run-2")
    second = plugin.build(plugin.options(path=str(tmp_path), follow=False), context)
    items = read_all(second)
    sentence = f"'{path}' is heard again, whole: run run did not get to its end"
    assert health_of(items) == [("recovering", sentence)]
    assert sum(len(i.samples) for i in items if isinstance(i, Block)) == 20_000
    assert read_all(make(tmp_path)) == []

"""Replay of runs in which a shadow was promoted: identical, in any blocks."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from processes.cli_process import RECORDING, neurovocal, running
from processes.waiting import PATIENCE_S, PROCESS_S, until

from neurovocal.engine import NeurovocalError
from neurovocal.engine.client import Control
from neurovocal.engine.contracts.errors import CommandError
from neurovocal.engine.journal import read_events

CONFIG = """\
version: 1
station: aviary
source: {{plugin: file, options: {{path: {song}, pace: realtime, repeat: 0}}}}
stop_timeout_s: 60
bundle: bengalese-finch
tile: {tile}
models: {models}
control: {{plugin: zmq, options: {{endpoint: "ipc://{folder}/control"}}}}
sinks: [{{plugin: journal, options: {{path: "{folder}/run.sqlite"}}}}]
"""
RBM = "[{plugin: classifier}, {plugin: rnn_rbm, options: {synthesis: free, seed: 3}}]"


def events(journal: Path, kind: str) -> list[dict[str, object]]:
    if not journal.exists():
        return []
    try:
        found = [one for one in read_events(journal) if one.kind == kind]
    except NeurovocalError:  # it is being made
        return []
    return [json.loads(one.header) for one in found]


def promoted(control: Control) -> bool:
    try:
        return control.promote()["promoted"].endswith("new.yaml")
    except CommandError:
        return False


@pytest.mark.parametrize("blocks", [(), ("--block-length", 77)])
def test_a_promoted_shadow_is_promoted_again(
    tmp_path: Path, blocks: tuple[str, ...]
) -> None:
    values = {"song": RECORDING, "folder": tmp_path}
    for name, models, tile in (("old", "[{plugin: classifier}]", 4), ("new", RBM, 3)):
        text = CONFIG.format(models=models, tile=tile, **values)
        (tmp_path / f"{name}.yaml").write_text(text)
    journal = tmp_path / "run.sqlite"
    with running("run", tmp_path / "old.yaml", "--plain") as process:
        until(lambda: len(events(journal, "label")) > 5)
        endpoint = f"ipc://{tmp_path}/control"
        with Control(endpoint, timeout=PATIENCE_S) as control:
            assert control.swap("new.yaml", shadow=True)["shadow"].endswith("new.yaml")
            until(lambda: len(events(journal, "comparison")) > 10)
            (figures,) = control.status()["swap"]["shadows"]
            assert figures["labels"]["equal"] > 0.5
            until(lambda: promoted(control))  # it may have to catch up
            until(lambda: control.status()["swap"]["state"] == "swapped")
            until(lambda: events(journal, "control"))
            n_labels = len(events(journal, "label"))
            until(lambda: len(events(journal, "label")) > n_labels + 20)
            control.stop()
        _, err = process.communicate(timeout=PROCESS_S)
    assert process.returncode == 0, err
    done = neurovocal("replay", journal, "--json", *blocks)
    report = json.loads(done.out)
    assert report["differences"] == []
    assert done.code == 0, done.err
    assert report["identical"]["control"] == 1
    assert report["identical"]["label"] > 20


def test_a_swap_whose_configuration_was_not_kept_is_refused(tmp_path: Path) -> None:
    done = neurovocal(
        *("run", "demo", "--plain", "--set"),
        f"sinks=[{{plugin: journal, options: {{path: '{tmp_path}/run.sqlite'}}}}]",
        *("--set", f"source={{plugin: file, options: {{path: '{RECORDING}'}}}}"),
    )
    assert done.code == 0, done.err

    with closing(sqlite3.connect(tmp_path / "run.sqlite")) as connection, connection:
        header = {
            "kind": "control",
            "v": 1,
            "stream": "bengalese-finch.flac",
            "seq": 0,
            "sample": 32000,
            "at": 32000,
            "sample_rate": 32000,
            "command": "swap",
            "model": "",
            "arguments": {"config": "x.yaml"},
        }
        connection.execute(
            "INSERT INTO messages SELECT run, 'control', stream, 0, 32000, NULL, ?, "
            "NULL, x'' FROM messages LIMIT 1",
            (json.dumps(header, separators=(",", ":")),),
        )
    done = neurovocal("replay", tmp_path / "run.sqlite")
    assert done.code == 1
    assert "of an earlier version" in done.err

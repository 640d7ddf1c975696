"""Benchmark of interrupted sources, and the search for a returned sound card."""

import subprocess
import sys

import pytest
from audio_devices.virtual_audio import needs_virtual_audio
from processes.waiting import PROCESS_S
from repository import ROOT

from neurovocal.engine.contracts.errors import DeviceError
from neurovocal.plugins.devices import choice

SCRIPT = ROOT / "bench" / "reliability" / "losses.py"


@needs_virtual_audio
def test_unplugged_card_returns_with_a_gap_of_the_true_length():
    command = [sys.executable, SCRIPT, "--kinds", "microphone", "--losses", "1"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PROCESS_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    row = done.stdout.split("\n")[-2].split()
    assert row[:4] == ["microphone", "1", "1", "1"]


def card(index, name, host="ALSA"):
    return {
        "index": index,
        "name": name,
        "host": host,
        "port": None,
        "only_at_port": False,
    }


@pytest.mark.parametrize(
    ("known", "now", "expected"),
    [
        # Another card number, another index, another default.
        (
            "UMC404: USB Audio (hw:1,0)",
            ["HDA (hw:0,0)", "UMC404: USB Audio (hw:3,0)"],
            1,
        ),
        # Two alike, and the one with the number that it had.
        ("UMC404 (hw:1,0)", ["UMC404 (hw:2,0)", "UMC404 (hw:1,0)"], 1),
        (
            "UMC404 (hw:1,0)",
            ["UMC404 (hw:2,0)", "UMC404 (hw:3,0)"],
            "2 devices are called",
        ),
        ("UMC404 (hw:1,0)", ["HDA (hw:1,0)"], "device 'UMC404' is not there"),
        ("Built-in Microphone", ["Other", "Built-in Microphone"], 1),
    ],
)
def test_device_is_found_again_by_its_name(monkeypatch, known, now, expected):
    cards = [card(index, name) for index, name in enumerate(now)]
    cards.append(card(len(cards), known, host="JACK"))  # the same by another way
    monkeypatch.setattr(choice, "devices", lambda direction: cards)
    if isinstance(expected, int):
        assert choice.find_again(card(7, known))["index"] == expected
    else:
        with pytest.raises(DeviceError, match=expected):
            choice.find_again(card(7, known))

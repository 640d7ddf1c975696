"""Selection of devices: cards of one name are distinguished by their USB ports.

The tree of sysfs is made of real folders and links; the cards are not real.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from neurovocal.engine.contracts.errors import DeviceError
from neurovocal.plugins.devices import choice
from neurovocal.plugins.devices.choice import find_again, find_device
from neurovocal.plugins.devices.portaudio import _reason, usb_port

CONTROLLER = "devices/pci0000:00/0000:00:14.0"


def plug(root: Path, number: int, place: str) -> None:
    """Create the sysfs entries of a card at a path below the controller."""
    device = root / CONTROLLER / place
    card = device / f"sound/card{number}"
    card.mkdir(parents=True)
    (card / "device").symlink_to("../..")
    shown = root / "class/sound"
    shown.mkdir(parents=True, exist_ok=True)
    (shown / f"card{number}").unlink(missing_ok=True)
    (shown / f"card{number}").symlink_to(card)


@pytest.mark.parametrize(
    ("place", "port"),
    [
        ("usb1/1-2/1-2:1.0", "usb:1-2"),
        ("usb3/3-4/3-4.1/3-4.1.3/3-4.1.3:1.0", "usb:3-4.1.3"),
        ("usb1/1-12/1-12:2.1", "usb:1-12"),
        ("../0000:00:1f.3", None),
    ],
)
def test_the_port_of_a_card(tmp_path: Path, place: str, port: str | None) -> None:
    plug(tmp_path, 3, place)
    assert usb_port("UMC404HD: USB Audio (hw:3,0)", "ALSA", tmp_path) == port
    assert usb_port("UMC404HD: USB Audio (hw:3,1)", "ALSA", tmp_path) == port


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("UMC404HD: USB Audio (hw:2,0)", "ALSA"),  # no such card
        ("default", "ALSA"),
        ("UMC404HD: USB Audio (hw:3,0)", "JACK Audio Connection Kit"),
        ("UMC404HD (hw:3,0) in front", "ALSA"),
        ("dongle (plughw:3,0)", "ALSA"),
    ],
)
def test_devices_without_a_known_port(tmp_path: Path, name: str, host: str) -> None:
    plug(tmp_path, 3, "usb1/1-2/1-2:1.0")
    assert usb_port(name, host, tmp_path) is None
    assert usb_port("UMC (hw:3,0)", "ALSA", tmp_path / "none") is None


class Cards:
    """Cards that are plugged in: numbers, names and ports."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._plugged = 0
        self._cards: list[tuple[int, str]] = []

    def are(self, *cards: tuple[int, str, str]) -> None:
        self._plugged += 1
        self._cards = [(number, name) for number, name, _ in cards]
        for number, _, place in cards:
            plug(self._root / str(self._plugged), number, place)

    def devices(self, direction: str) -> list[dict[str, Any]]:
        root = self._root / str(self._plugged)
        return [
            {
                "index": index,
                "name": f"{name} (hw:{number},0)",
                "host": "ALSA",
                "default": index == 0,
                "port": usb_port(f"{name} (hw:{number},0)", "ALSA", root),
            }
            for index, (number, name) in enumerate(self._cards)
        ]


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cards:
    cards = Cards(tmp_path)
    monkeypatch.setattr(choice, "devices", cards.devices)
    return cards


LEFT, RIGHT, ELSEWHERE = (f"usb1/1-{n}/1-{n}:1.0" for n in (1, 2, 3))


def test_equal_cards_that_swap_numbers_are_found_by_port(cards: Cards) -> None:
    cards.are((1, "UMC", LEFT), (2, "UMC", RIGHT))
    with pytest.raises(DeviceError, match=r"0 'UMC \(hw:1,0\)' at usb:1-1, 1 'UMC"):
        find_device("UMC")
    right = find_device("usb:1-2")
    left = find_device("UMC (hw:1,0)")
    assert (left["port"], right["name"]) == ("usb:1-1", "UMC (hw:2,0)")
    cards.are((1, "UMC", RIGHT), (2, "UMC", LEFT))
    assert find_again(right)["name"] == "UMC (hw:1,0)"
    assert find_again(find_again(left))["name"] == "UMC (hw:2,0)"
    # One that is gone is not replaced by the other.
    cards.are((1, "UMC", RIGHT))
    with pytest.raises(DeviceError, match="connect it again, at usb:1-1"):
        find_again(left)
    assert find_again(right)["name"] == "UMC (hw:1,0)"
    cards.are((1, "UMC", RIGHT), (5, "UMC", LEFT))
    assert find_again(left)["name"] == "UMC (hw:5,0)"


def test_a_unique_card_is_found_at_another_port(cards: Cards) -> None:
    cards.are((0, "HDA", "../0000:00:1f.3"), (1, "UMC", LEFT))
    only = find_device("UMC")
    cards.are((0, "HDA", "../0000:00:1f.3"), (1, "UMC", ELSEWHERE))
    assert find_again(only)["port"] == "usb:1-3"
    # A second one that came meanwhile is not it: it is where it was.
    cards.are((1, "UMC", RIGHT), (2, "UMC", LEFT))
    assert find_again(only)["port"] == "usb:1-1"
    cards.are((1, "UMC", RIGHT), (4, "UMC", ELSEWHERE))
    with pytest.raises(DeviceError, match="2 devices are called 'UMC' now"):
        find_again(only)


def test_a_card_selected_by_port_is_found_at_that_port_only(cards: Cards) -> None:
    cards.are((1, "UMC", LEFT))
    chosen = find_device("usb:1-1")
    cards.are((1, "UMC", ELSEWHERE))
    with pytest.raises(DeviceError, match="at usb:1-1"):
        find_again(chosen)
    with pytest.raises(DeviceError, match=r"no input device 'usb:1-1'.*at usb:1-3"):
        find_device("usb:1-1")


def test_a_card_of_several_devices_is_found_by_name_at_its_port(cards: Cards) -> None:
    cards.are((1, "UMC", LEFT))
    found = cards.devices("input") * 2
    found[1] = {**found[1], "index": 1, "name": "UMC (hw:1,1)"}
    second = {**found[1], "only_at_port": True}
    cards_now = SimpleNamespace(devices=lambda direction: found)
    choice.devices = cards_now.devices  # the fixture puts it back
    assert find_again(second)["index"] == 1
    with pytest.raises(DeviceError, match="several input devices fit 'usb:1-1'"):
        find_device("usb:1-1")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Device unavailable [PaErrorCode -9985]", "another program uses it"),
        ("Illegal combination of I/O devices [PaErrorCode -9993]", "by way of"),
        ("Unanticipated host error [PaErrorCode -9999]", "its driver failed"),
        (
            "Unanticipated host error [PaErrorCode -9999]: 'Device or resource busy' "
            "[ALSA error -16]",
            "its driver says 'Device or resource busy'; unplug it",
        ),
        ("Something new [PaErrorCode -1]", "Something new; unplug it"),
    ],
)
def test_a_device_that_is_not_opened_tells_what_helps(text: str, told: str) -> None:
    reason = _reason(OSError(f"Error opening InputStream: {text}"))
    assert told in reason
    assert "PaError" not in reason

"""`neurovocal demo --files`: what the demo consists of, in a folder of the user's."""

from pathlib import Path

import pytest

from neurovocal.engine.cli.demo_files import copy_demo
from neurovocal.engine.contracts.errors import ConfigError


def test_the_copied_configuration_plays_the_copied_recording(tmp_path: Path) -> None:
    config, *_, recording = copy_demo(tmp_path / "new")
    assert recording.stat().st_size > 100_000
    assert str(recording.relative_to(tmp_path / "new")) in config.read_text()


def test_copying_twice_changes_nothing(tmp_path: Path) -> None:
    first = {path: path.stat().st_mtime_ns for path in copy_demo(tmp_path)}
    assert {path: path.stat().st_mtime_ns for path in copy_demo(tmp_path)} == first


def test_a_file_of_the_user_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").write_text("version: 1\n")
    with pytest.raises(ConfigError, match=r"demo\.yaml' exists and is not the demo's"):
        copy_demo(tmp_path)
    assert (tmp_path / "demo.yaml").read_text() == "version: 1\n"
    assert not (tmp_path / "recordings").exists()


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--files"):
        copy_demo(tmp_path / "file")

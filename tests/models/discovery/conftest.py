"""A finished discovery of recordings with three kinds of sounds."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from datasets.kinds import order, write_kinds

from neurovocal.engine.cli import main

UPDATES = 150


@pytest.fixture
def run(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process; return exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(each) for each in arguments])
        out, err = capfd.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with recordings in `songs` and their discovery in `found`."""
    folder = tmp_path_factory.mktemp("discovery")
    (folder / "songs").mkdir()
    for number in (1, 2):
        write_kinds(folder / "songs" / f"song{number}.wav", order(36, number))
    with pytest.raises(SystemExit) as ended:
        main(
            [
                *("discover", str(folder / "songs"), "--out", str(folder / "found")),
                *("--updates", str(UPDATES), "--min-size", "8"),
            ]
        )
    assert not ended.value.code
    return folder


@pytest.fixture
def found(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished discovery that a test may change."""
    shutil.copytree(finished / "songs", tmp_path / "songs")
    shutil.copytree(finished / "found", tmp_path / "found")
    return tmp_path / "found"

"""Configurations in docs/connect: each block passes `neurovocal check`."""

import re
from pathlib import Path

import pytest
import yaml
from repository import ROOT

from neurovocal.engine.cli.session import plan_of
from neurovocal.engine.config.located_yaml import parse_located

NAMES = ("daily", "lsl", "mqtt", "osc", "prometheus", "stations", "webhook")
PAGES = [ROOT / "docs" / "connect" / f"{name}.md" for name in NAMES]
BLOCKS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, block in enumerate(
        re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    )
]
REST = {"version": 1, "source": {"plugin": "synthetic"}}


@pytest.mark.parametrize("block", BLOCKS)
def test_each_block_is_a_valid_configuration(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in re.findall(r"\$\{(\w+)\}", block):
        monkeypatch.setenv(name, f"value of {name}")
    for name in re.findall(r"(\w+)_file: ([^\s,}]+)", block):
        Path(name[1]).write_text("a secret\n")
    data = {**REST, **yaml.safe_load(block)}
    located = parse_located(yaml.safe_dump(data), "station.yaml")
    plan = plan_of(located)
    assert plan.sinks or plan.lanes[0].sinks

"""What the README and the examples show, run for real."""

import os
import re
import subprocess
import sys

import pytest
from processes.waiting import PROCESS_S
from repository import ROOT

from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import StreamInfo
from neurovocal.engine.testing import check_processor, song


def run(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PROCESS_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_detector_of_the_documentation_passes_the_conformance_check(tmp_path):
    (snippet,) = re.findall(
        r"```python\n(# loud\.py.*?)```",
        (ROOT / "docs/how-to/plugin.md").read_text(),
        re.DOTALL,
    )
    (tmp_path / "loud.py").write_text(snippet)
    plugin = Registry().get("detector", "./loud.py:plugin", base=tmp_path)
    context = BuildContext(ManualClock(), "test", info=StreamInfo("x", 32000))
    check_processor(lambda: plugin.build(plugin.options(), context), song(32000, 3.0))


def test_the_unit_restarts_what_may_pass_and_allows_many_connections():
    text = (ROOT / "examples" / "neurovocal.service").read_text()
    unit = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    assert unit["Restart"] == "on-failure"
    # A wrong configuration stays wrong; a failure (2), such as a locked journal, may
    # pass.
    assert unit["RestartPreventExitStatus"] == "1"
    assert unit["StartLimitIntervalSec"] == "0"
    assert int(unit["LimitNOFILE"]) >= 65_536


@pytest.mark.timeout(300)
def test_the_plugin_template_works_as_a_distribution(tmp_path):
    run(
        *("-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path)),
        str(ROOT / "examples" / "plugin"),
    )
    command = "from neurovocal.engine.cli import main; main()"
    assert "Absolute value" in run(
        "-c", command, "plugins", "loud", PYTHONPATH=str(tmp_path)
    )
    table = run(
        *("-c", command, "run", str(ROOT / "examples/plugin/loud.yaml"), "--plain"),
        PYTHONPATH=str(tmp_path),
    )
    rows = [line for line in table.splitlines() if line.count(",") == 3]
    assert rows[0] == "file,onset_s,offset_s,score"
    assert len(rows) > 10
    run(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib"),
        *("-c", os.devnull, "--rootdir", str(tmp_path)),
        str(ROOT / "examples/plugin/tests"),
        PYTHONPATH=str(tmp_path),
    )

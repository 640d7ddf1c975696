"""Every code block of the documentation and the README is run, or says why not."""

import functools
import subprocess
from pathlib import Path

import pytest
import yaml
from blocks import LANGUAGES, REASONS, Block, Session, blocks_of, differences
from jsonschema import Draft202012Validator
from repository import ROOT

from neurovocal.engine.config.schema import SingleConfig

PAGES = sorted((*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"))
BLOCKS = {page: blocks_of(page.read_text(encoding="utf-8")) for page in PAGES}
ALL = [(page, block) for page, blocks in BLOCKS.items() for block in blocks]
RUN = [p for p, blocks in BLOCKS.items() if any(b.runs for b in blocks)]
LONG = [p for p in RUN if any("long" in b.marks for b in BLOCKS[p])]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix().removesuffix(".md")


def place(value: object) -> str:
    if isinstance(value, Path):
        return name_of(value)
    assert isinstance(value, Block)
    return f"line {value.line}"


def run_page(folder: Path, page: Path, *, long: bool) -> None:
    session = Session(folder, page)
    for block in BLOCKS[page]:
        if not block.runs or ("long" in block.marks and not long):
            continue
        outputs = session.run(block)
        for each in differences(block, outputs):
            pytest.fail(f"{page}:{block.line}: {each}", pytrace=False)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_the_blocks_of_a_page_run(tmp_path: Path, page: Path) -> None:
    run_page(tmp_path, page, long=False)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", LONG, ids=name_of)
def test_the_long_blocks_of_a_page_run(tmp_path: Path, page: Path) -> None:
    run_page(tmp_path, page, long=True)


@pytest.mark.parametrize(("page", "block"), ALL, ids=place)
def test_a_block_is_of_a_known_language_and_its_marks_are_known(
    page: Path, block: Block
) -> None:
    assert block.language in LANGUAGES, "a block without a language is `text`"
    assert set(block.marks) <= {*MARKS, "given", "default ports"}
    if "not run" in block.marks:
        assert block.marks["not run"] in REASONS
        assert block.language in ("sh", "console", "python")


MARKS = ("beside", "exit", "file", "fragment", "long", "not run", "until")


@pytest.mark.parametrize(
    ("page", "block"),
    [(p, b) for p, b in ALL if b.language in ("sh", "console")],
    ids=place,
)
def test_a_block_of_shell_is_correct_shell(page: Path, block: Block) -> None:
    done = subprocess.run(
        ["bash", "-n", "-c", block.commands],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("page", "block"), [(p, b) for p, b in ALL if b.language == "python"], ids=place
)
def test_a_block_of_python_is_correct_python(page: Path, block: Block) -> None:
    compile(block.body, str(page), "exec")


@pytest.mark.parametrize(
    ("page", "block"), [(p, b) for p, b in ALL if b.language == "yaml"], ids=place
)
def test_a_block_of_yaml_is_configuration(page: Path, block: Block) -> None:
    """A part of a configuration is checked by the schema; `fragment` names others."""
    content = yaml.safe_load(block.body)
    if "fragment" in block.marks:
        assert content
        return
    whole = {"version": 1, "source": {"plugin": "microphone"}, **content}
    if "lanes" in whole:
        del whole["source"]
        lanes = whole.pop("lanes")
        for lane in lanes:
            validate({**whole, **lane})
        return
    validate(whole)


@functools.cache
def schema() -> dict[str, object]:
    return SingleConfig.model_json_schema()


def validate(content: dict[str, object]) -> None:
    validator = Draft202012Validator(schema())
    problems = [
        f"{'.'.join(map(str, each.absolute_path))}: {each.message}"
        for each in validator.iter_errors(content)
    ]
    assert not problems

"""What the documentation says of the program: commands, options, generated pages."""

import re
from pathlib import Path

import pytest
from commands import Command, command_tree
from reference import out_of_date
from repository import ROOT

PAGES = sorted((*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"))
TREE = command_tree()
CALL = re.compile(r"(?<![\w/.-])(?<!-u )neurovocal((?: +(?:\\\n)?\s*[^\s`|&;)#>]+)*)")
CODE = re.compile(r"^(```+)(.*?)^[ ]*\1[ \t]*$|`([^`\n]+)`", re.S | re.M)


def calls(text: str) -> list[list[str]]:
    """Return the words after each `neurovocal` in code."""
    found = []
    for _, block, line in CODE.findall(text):
        for words in CALL.findall(block or line):
            found.append(re.sub(r"\\\n", " ", words).split())
    return found


def problem(words: list[str]) -> str | None:
    """Return what is wrong with a command, None if nothing is."""
    command: Command = TREE
    is_value = False
    for word in words:
        if is_value:
            is_value = False
        elif re.match(r"--?[a-z]", word):
            option = word.split("=")[0].rstrip(",.:")
            if option not in command.options and option not in TREE.options:
                return f"`neurovocal {command.name}` has no option {option}"
            takes = {**TREE.options, **command.options}[option]
            is_value = takes and "=" not in word
        elif re.fullmatch(r"[a-z]+", word) and word in command.under:
            command = command.under[word]
        elif command is TREE and re.fullmatch(r"[a-z]+", word):
            return f"there is no command `neurovocal {word}`"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_commands_and_options_of_a_page_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    problems = [each for words in calls(text) if (each := problem(words))]
    assert not problems


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_targets_of_make_that_a_page_names_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    text = "\n".join(
        block or line
        for _, block, line in CODE.findall(page.read_text(encoding="utf-8"))
    )
    assert set(re.findall(r"\bmake ([a-z][a-z-]*)", text)) <= targets


def test_the_generated_pages_are_as_the_code_is() -> None:
    late = [path.relative_to(ROOT).as_posix() for path in out_of_date()]
    assert not late, "run `make reference`"

"""Compares a recorded text with the expected one."""

import difflib
import re

from golden.masking import NUMBER

_RELATIVE, _ABSOLUTE = 1e-2, 2e-3
_LOOSE = re.compile(rf"~({NUMBER})")
_CONTEXT_LINES = 2
_MOST_LINES = 200


def difference(expected: str, recorded: str, name: str) -> str:
    """Return a unified diff, empty where the texts agree.

    Numbers marked by `~` agree within 1 % or 0.002, or one unit of the last digit
    that is written; everything else must be equal.
    """
    wanted, found = expected.splitlines(), recorded.splitlines()
    if wanted == found:
        return ""
    found = _aligned(wanted, found)
    lines = list(
        difflib.unified_diff(
            wanted,
            found,
            f"{name} (expected)",
            f"{name} (recorded)",
            lineterm="",
            n=_CONTEXT_LINES,
        )
    )
    if len(lines) > _MOST_LINES:
        more = len(lines) - _MOST_LINES
        lines = [*lines[:_MOST_LINES], f"... and {more} more lines"]
    return "\n".join(lines)


def _aligned(wanted: list[str], found: list[str]) -> list[str]:
    """The recorded lines, with those that agree replaced by the expected ones."""
    bare_wanted = [_LOOSE.sub("~", line) for line in wanted]
    bare_found = [_LOOSE.sub("~", line) for line in found]
    matcher = difflib.SequenceMatcher(None, bare_wanted, bare_found, autojunk=False)
    result = list(found)
    for block in matcher.get_matching_blocks():
        for step in range(block.size):
            line = wanted[block.a + step]
            if _agree(line, found[block.b + step]):
                result[block.b + step] = line
    return result


def _agree(wanted: str, found: str) -> bool:
    pairs = zip(_LOOSE.findall(wanted), _LOOSE.findall(found), strict=True)
    return all(_near(a, b) for a, b in pairs)


def _near(wanted: str, found: str) -> bool:
    a, b = float(wanted), float(found)
    allowed = max(_ABSOLUTE, _RELATIVE * abs(a), 1.01 * _last_digit(wanted))
    return abs(a - b) <= allowed


def _last_digit(text: str) -> float:
    """Value of one unit of the last digit of a number that is written."""
    mantissa, _, exponent = text.lower().partition("e")
    _, _, decimals = mantissa.partition(".")
    return 10.0 ** (int(exponent or 0) - len(decimals)) if decimals else 0.0

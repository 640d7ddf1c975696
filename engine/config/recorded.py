"""Text of a configuration that a journal keeps, and the file that it came from."""

import re
from pathlib import Path

from neurovocal.engine.support.text import plain

# First line of the configuration that a journal keeps: the file that it came from.
_ORIGIN = "# configuration: "


def origin_line(path: Path) -> str:
    """Return the line by which a recorded configuration names its file."""
    return f"{_ORIGIN}{plain(str(path))}"


def recorded_base(config_text: str) -> Path:
    """Return the folder that relative paths of a recorded configuration start from.

    The working folder, if the record does not name the file that it came from.
    """
    origin = re.search(f"^{_ORIGIN}(.*)$", config_text, re.MULTILINE)
    return Path(origin[1]).parent if origin else Path.cwd()

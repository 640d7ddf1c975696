"""Options and checks that the commands of training share."""

import shlex
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from neurovocal.engine.contracts.errors import ConfigError

if TYPE_CHECKING:
    from neurovocal.models.data.formats.segments import AnnotationChoice

# Modules that the report needs.
REPORT = ("matplotlib", "jinja2")

Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="F",
        help="Annotation format: raven, audacity (or aud-seq), textgrid, notmat, "
        "simple-seq, timit, birdsong-recognition-dataset, ...; default: "
        "annotations.csv.",
    ),
]
LabelColumn = Annotated[
    str | None,
    typer.Option(
        "--label-column", metavar="NAME", help="Column of the labels in the tables."
    ),
]
Tier = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Interval tier of TextGrids: name or number."),
]
Channels = Annotated[
    str | None,
    typer.Option(
        metavar="N,...",
        help="Channels that are used, with their labels. Default: those that labels "
        "name, or else the first.",
    ),
]


def label_choice(
    label_column: str | None, tier: str | None, channels: str | None
) -> "AnnotationChoice":
    """Return which labels are meant; raises ConfigError for faulty channels."""
    from neurovocal.models.data.formats.segments import AnnotationChoice

    numbers = [part.strip() for part in channels.split(",")] if channels else []
    wrong = [n for n in numbers if not (n.isascii() and n.isdigit() and int(n))]
    if wrong or len({*numbers}) < len(numbers):
        raise ConfigError(
            f"--channels: '{channels}' is no list of channels such as 1 or 1,2"
        )
    return AnnotationChoice(label_column, tier, tuple(sorted(map(int, numbers))))


def require_modules(*modules: str) -> None:
    """Raise ConfigError if a module is not installed."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        *first, last = missing
        names = f"{', '.join(first)} and {last}" if first else last
        raise ConfigError(
            f"this command needs {names}, which {'are' if first else 'is'} not "
            "installed: pip install 'neurovocal[train]'"
        )


def command_line() -> str:
    """Return the command line, for the record in the bundle."""
    return shlex.join(["neurovocal", *sys.argv[1:]])

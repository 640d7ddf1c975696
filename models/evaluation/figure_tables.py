"""Tables of figures for people."""

from typing import Any

from rich.console import Console
from rich.table import Table


def print_figures(figures: dict[str, Any]) -> None:
    """Print a table of the figures of each model."""
    console = Console(highlight=False)
    for part, measures in figures.items():
        if part == "label_in_time":
            print_label_in_time(console, measures)
            continue
        if not isinstance(measures, dict):
            console.print(f"{part}: {measures}", markup=False)
            continue
        table = Table(title=part, title_justify="left", show_header=False)
        for name, value in measures.items():
            if isinstance(value, int | float):
                table.add_row(name.replace("_", " "), f"{value:g}")
        console.print(table)


def print_label_in_time(console: Console, rows: list[dict[str, Any]]) -> None:
    """Print the accuracy of labels by delay after the onset as a table."""
    table = Table(title="label in time", title_justify="left")
    names = list(rows[0]) if rows else []
    for name in names:
        heading = name.removesuffix("_percent").replace("_", " ")
        table.add_column(heading if name == "ms" else f"{heading} %", justify="right")
    for row in rows:
        table.add_row(*(str(row[name]) for name in names))
    console.print(table)

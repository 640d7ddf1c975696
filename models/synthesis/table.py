"""The figures of synthesis quality as a table for people."""

from typing import Any

from rich.console import Console
from rich.table import Table

_NAMES = {
    "frechet_distance": "Fréchet distance",
    "units_per_s": "units per second",
    "duration_median_ms": "median duration, ms",
    "duration_ks": "durations, KS",
    "spectrum_distance": "mean spectrum, RMS",
    "modulation_correlation": "modulation, corr.",
    "spread_ratio": "spread, of real",
    "repeats_percent": "repeats, %",
    "sure_percent": "sure labels, %",
    "transition_divergence_bits": "transitions, bits",
    "transition_gain_nats": "order, nats",
}


def print_quality(quality: dict[str, Any], console: Console | None = None) -> None:
    """Print a column for each kind of song, and a line on what was compared."""
    console = console or Console(highlight=False)
    table = Table(title="synthesis", title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    columns = {"held-out": quality["held_out"], **quality["rows"]}
    for title in columns:
        # Two short lines take less room than a long one.
        table.add_column(title.replace("_", "\n"), justify="right", vertical="bottom")
    for key, name in _NAMES.items():
        cells = [figures.get(key) for figures in columns.values()]
        if any(cell is not None for cell in cells):
            table.add_row(name, *("" if c is None else f"{c:.3g}" for c in cells))
    console.print(table)
    bits = quality["order_0_divergence_bits"]
    console.print(
        f"{quality['seconds']:g} s drawn per column, seed {quality['seed']}; compared "
        f"with {quality['held_out_recordings']} held-out recordings "
        f"({quality['against']}); real: {quality['known_recordings']} known ones"
        + ("" if bits is None else f"; transitions in no order: {bits:.3g} bits"),
        markup=False,
    )

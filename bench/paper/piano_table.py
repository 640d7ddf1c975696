"""Table of the piano rolls: measured cells beside the paper's figures."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from piano_rolls import ROWS, Recipe, recipe_for

# Log-likelihood per frame and expected accuracy in percent: table 1 of
# Boulanger-Lewandowski et al. 2012; the RNN-NADE's row is the Hessian-free one.
PAPER = {
    "rbm": {
        "JSB_Chorales": (-7.43, 4.47),
        "Nottingham": (-5.25, 5.81),
        "Piano_midi": (-10.17, 5.63),
        "MuseData": (-9.56, 8.19),
    },
    "rnn": {
        "JSB_Chorales": (-8.71, 28.46),
        "Nottingham": (-4.46, 62.93),
        "Piano_midi": (-8.37, 19.33),
        "MuseData": (-8.13, 23.25),
    },
    "rtrbm": {
        "JSB_Chorales": (-6.35, 30.17),
        "Nottingham": (-2.62, 75.01),
        "Piano_midi": (-7.36, 22.99),
        "MuseData": (-6.35, 30.85),
    },
    "rnn_rbm": {
        "JSB_Chorales": (-6.27, 33.12),
        "Nottingham": (-2.39, 75.40),
        "Piano_midi": (-7.09, 28.92),
        "MuseData": (-6.01, 34.02),
    },
    "nade": {
        "JSB_Chorales": (-5.56, 32.50),
        "Nottingham": (-2.31, 71.50),
        "Piano_midi": (-7.05, 23.42),
        "MuseData": (-5.60, 32.60),
    },
}
# The paper has no row with transposed keys: the nearest is the RNN-RBM.
PAPER["keys"] = PAPER["rnn_rbm"]
TITLES = {
    "copy": "copy of the last frame",
    "rbm": "RBM, no past",
    "rnn": "RNN, no RBM",
    "rtrbm": "RNN-RBM, simple tanh cell (RTRBM-like)",
    "rnn_rbm": "RNN-RBM, gated",
    "keys": "RNN-RBM, gated, with transposed keys",
    "nade": "RNN-NADE, gated",
}


def table(folder: Path, sets: list[str]) -> list[str]:
    """Return lines of Markdown with all cells in a folder.

    Parameters
    ----------
    folder : Path
        Folder of cells as JSON files ``SET-ROW-SEED.json``.
    sets : list of str
        Sets, in this order.
    """
    lines = []
    for name in sets:
        lines += [
            f"### {name}",
            "",
            "| row | seed | LL per frame, bracket | accuracy % | annealed % | "
            "TP/(TP+FP+FN) % | "
            "paper: LL / accuracy % | s |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for row in ROWS:
            for path in sorted(folder.glob(f"{name}-{row}-*.json")):
                lines.append(_line(json.loads(path.read_text())))
        lines.append("")
    return lines


def _line(cell: dict[str, Any]) -> str:
    """Return one row of the table."""
    test, paper = cell["test"], PAPER.get(cell["row"], {}).get(cell["set"])
    likelihood = "none" if cell["row"] == "copy" else "refused"
    if "low" in test:
        likelihood = f"{test['low']:.2f} .. {test['high']:.2f}"
        if test["low"] == test["high"]:
            likelihood = f"{test['low']:.2f} (exact)"
    beside = f"{paper[0]:.2f} / {paper[1]:.2f}" if paper else ""
    nearer = ""
    if "annealed" in test:
        nearer = f"{100 * test['annealed']['replaced_once']:.1f}"
    notes = " (cut short)" if cell.get("updates", 0) < cell.get("planned", 0) else ""
    if "recipe" in cell and cell["recipe"] != plain(
        recipe_for(cell["set"], cell["row"])
    ):
        notes += " (an older recipe)"
    return (
        f"| {TITLES[cell['row']]}{notes} | {cell['seed']} | {likelihood} | "
        f"{100 * test['replaced_once']:.1f} | {nearer} | "
        f"{100 * test['pooled']:.1f} | {beside} | "
        f"{cell.get('training_s', 0):.0f} |"
    )


def plain(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as read from a JSON file."""
    found: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    return found

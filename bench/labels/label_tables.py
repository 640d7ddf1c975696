"""Tables of docs/performance/labels.md from the cells of label_accuracy.py."""

import json
from pathlib import Path
from typing import Any

# Frame error / syllable error after clean-up / raw, in percent, and training seconds:
# TweetyNet's means over ten replicates, computed from the result tables of
# yardencsGitHub/tweetynet.
TWEETYNET = {
    "gy6or6": [(120, 2.35, 1.78, 9.0), (180, 2.29, 1.49, 7.1), (600, 1.74, 0.81, 3.7)],
    "bird0": [(480, 1.58, 1.38, 11.5), (600, 1.64, 1.51, 12.2)],
}
TITLES = {
    "gru": "GRU 96 (the recipe)",
    "lstm": "LSTM 128",
    "lstm-last": "LSTM 128, last-step output (train-source.yaml)",
    "tcn": "TCN 64 x 7",
    "conv_gru": "convolution and GRU 96",
}
ANSWERS = ("right", "wrong", "unknown", "unlabelled")
LEAST = (0.0, 0.8, 0.9, 0.95, 0.99, 0.999)


def tables(out: Path) -> list[str]:
    """Return the Markdown of all stored cells."""
    cells = [json.loads(path.read_text()) for path in sorted(out.glob("*-*-*.json"))]
    lines = [*recipe_table(cells), "", *network_table(cells), ""]
    lines += [*time_table(cells), ""]
    foreign = out / "foreign.json"
    if foreign.is_file():
        lines += foreign_table(json.loads(foreign.read_text())["sounds"])
    return lines


def recipe_table(cells: list[dict[str, Any]]) -> list[str]:
    """Return the table of the recipe on every set, beside TweetyNet."""
    lines = [
        "| set | seed | training s | test s, syllables | frame error, final % | "
        "frame error, causal % | syllable error % | raw % |",
        "| --- | --- | --: | --: | --: | --: | --: | --: |",
    ]
    for cell in cells:
        if cell["network"] != "gru":
            continue
        figures, seconds = cell["figures"]["classifier"], cell["seconds"]
        lines.append(
            f"| {cell['set']} | {cell['seed']} | {seconds['train']:.0f} | "
            f"{seconds['test']:.0f}, {figures['reference_syllables']} | "
            f"{figures['frame_error_final_percent']:.2f} | "
            f"{figures['frame_error_percent']:.2f} | "
            f"{figures['syllable_error_percent']:.2f} | "
            f"{figures['syllable_error_without_detector_percent']:.1f} |"
        )
    for name, rows in TWEETYNET.items():
        for train_s, frames, syllables, raw in rows:
            lines.append(
                f"| {name}, TweetyNet, not causal | mean of 10 | {train_s} | "
                f"other recordings | {frames:.2f} | | {syllables:.2f} | {raw:.1f} |"
            )
    return lines


def network_table(cells: list[dict[str, Any]]) -> list[str]:
    """Return the table of networks on the first set."""
    lines = [
        "| network | seeds | frame error, final % | frame error, causal % | "
        "syllable error % | parameters | us per frame |",
        "| --- | --- | --: | --: | --: | --: | --: |",
    ]
    for network, title in TITLES.items():
        own = [c for c in cells if c["network"] == network and c["set"] == "gy6or6"]
        if not own:
            continue

        def each(name: str, own: list[dict[str, Any]] = own) -> str:
            values = [c["figures"]["classifier"][name] for c in own]
            return " / ".join(f"{value:.2f}" for value in values)

        seeds = " / ".join(str(c["seed"]) for c in own)
        fastest = min(c["us_per_frame"] for c in own)
        lines.append(
            f"| {title} | {seeds} | {each('frame_error_final_percent')} | "
            f"{each('frame_error_percent')} | {each('syllable_error_percent')} | "
            f"{own[0]['parameters'] / 1000:.0f} k | {fastest:.0f} |"
        )
    return lines


def time_table(cells: list[dict[str, Any]]) -> list[str]:
    """Return the table of labels by delay, seed 0 of the recipe on every set."""
    lines = [
        "| set | ms after onset | right % | wrong % | unknown % | not yet % | "
        "right if forced % |",
        "| --- | --: | --: | --: | --: | --: | --: |",
    ]
    for cell in cells:
        if cell["network"] != "gru" or cell["seed"] != 0:
            continue
        for row in cell["figures"]["label_in_time"]:
            lines.append(
                f"| {cell['set']} | {row['ms']} | {row['right_percent']:.1f} | "
                f"{row['wrong_percent']:.1f} | {row['unknown_percent']:.1f} | "
                f"{row['unlabelled_percent']:.1f} | "
                f"{row['forced_right_percent']:.1f} |"
            )
    return lines


def foreign_table(sounds: dict[str, Any]) -> list[str]:
    """Return the share of segments labelled `unknown`, by `min_posterior`."""
    least = " | ".join(f"{value:g}" for value in LEAST)
    lines = [
        f"| segments answered with `unknown`, % | segments | {least} |",
        "| --- | --: |" + " --: |" * len(LEAST),
    ]
    for title, found in sounds.items():
        total = len(found["unknown"]) + len(found["named"])
        shares = [
            len(found["unknown"]) + sum(p < value for p in found["named"])
            for value in LEAST
        ]
        row = " | ".join(f"{100 * n / max(total, 1):.1f}" for n in shares)
        lines.append(f"| {title} | {total} | {row} |")
    return lines


def draw(out: Path, picture: Path) -> None:
    """Draw the labels by delay as SVG, one panel per set."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "labels"
    import matplotlib.pyplot as plt

    cells = [json.loads(path.read_text()) for path in sorted(out.glob("*-gru-0.json"))]
    if not cells:
        return
    shape = {"figsize": (3.2 * len(cells), 3.0), "sharey": True, "squeeze": False}
    figure, axes = plt.subplots(1, len(cells), **shape)
    for axis, cell in zip(axes[0], cells, strict=True):
        rows = cell["figures"]["label_in_time"]
        names = [str(row["ms"]) for row in rows]
        for answer in ANSWERS:
            values = [row[f"{answer}_percent"] for row in rows]
            axis.plot(names, values, marker="o", markersize=3, label=answer)
        forced = [row["forced_right_percent"] for row in rows]
        axis.plot(names, forced, "k--", linewidth=1, label="right if forced")
        axis.set_title(cell["set"])
        axis.set_xlabel("ms after onset")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("vocalizations, %")
    axes[0][-1].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(picture, metadata={"Date": None})

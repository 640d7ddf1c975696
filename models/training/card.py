"""Card of a bundle: descriptive manifest fields and its README.md."""

import re
from pathlib import Path
from typing import Any

from neurovocal.engine.contracts.bundle import Manifest
from neurovocal.models.toolkit.recipe import CardConfig

_LINE = re.compile(r"^(licen[cs]e|attribution)\s*:\s*(.+?)\s*$", re.IGNORECASE)
UNKNOWN = "unknown"


def complete_card(card: CardConfig, dataset: Path, out: Path) -> CardConfig:
    """Fill the empty fields of a card from the dataset's README.md.

    Parameters
    ----------
    card : CardConfig
        Card of the recipe.
    dataset : Path
        Folder of the dataset.
    out : Path
        Folder of the bundle, whose name is the default name.
    """
    found: dict[str, str] = {}
    try:
        text = (dataset / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    for line in text.splitlines():
        match = _LINE.match(line)
        if match:
            found.setdefault(match[1].lower().replace("license", "licence"), match[2])
    blocks = [b.strip() for b in re.split(r"\n\s*\n", text)]
    plain = [b for b in blocks if b and not b.startswith("#")]
    about = " ".join(plain[0].split()) if plain else ""
    return CardConfig(
        name=card.name or out.name,
        species=card.species or about.partition(":")[0][:80] or UNKNOWN,
        licence=card.licence or found.get("licence", UNKNOWN),
        attribution=card.attribution or found.get("attribution", ""),
        description=card.description or about,
    )


def card_page(manifest: Manifest, description: str) -> str:
    """Write the README.md of a bundle in Markdown."""
    training, figures = manifest.training, manifest.figures
    measured = figures.get("measured_on", "the test split")
    lines = [
        f"# {manifest.name}",
        "",
        *([description, ""] if description else []),
        f"* Species: {manifest.species}",
        f"* Licence: {manifest.licence}",
        f"* Attribution: {manifest.attribution or 'none asked for'}",
        f"* Front end: {manifest.front_end.plugin}, {manifest.front_end.n_bins} bins, "
        f"{manifest.front_end.frame_length} samples a frame, "
        f"{manifest.front_end.hop_length} a hop, "
        f"{manifest.front_end.sample_rate} Hz",
    ]
    if manifest.classifier is not None:
        units = ", ".join(u for u in manifest.classifier.units if u)
        lines.append(f"* Units: {units}")
    seconds = training.get("seconds", {})
    lines += [
        *_amounts(seconds, training),
        "",
        "Made by",
        "",
        f"    {training.get('command')}",
        "",
        "## Figures",
        "",
        f"Measured on {measured}.",
        "",
        "| measure | value |",
        "| --- | --- |",
    ]
    for part in ("cross_validation", "classifier", "rnn_rbm"):
        for name, value in figures.get(part, {}).items():
            if isinstance(value, int | float):
                lines.append(f"| {part.replace('_', ' ')}: {name} | {value:g} |")
    lines += [
        "",
        "What the measures mean: docs/how-to/training.md. They hold for this animal",
        "and this way of recording; `neurovocal evaluate` gives the same measures on",
        "any other annotated recordings.",
        "",
    ]
    return "\n".join(lines)


def _amounts(seconds: dict[str, float], training: dict[str, Any]) -> list[str]:
    """Return a line on what was trained, chosen and tested on."""
    split, folds = training.get("split"), training.get("cross_validation")
    if folds is None:
        return [
            f"* Trained on {seconds.get('train')} s, chosen on "
            f"{seconds.get('valid')} s, tested on {seconds.get('test')} s ({split})"
        ]
    used = round(seconds.get("train", 0.0) + seconds.get("valid", 0.0), 1)
    tested = seconds.get("test", 0.0)
    line = f"* Trained on {used} s; chosen by cross-validation ({folds})"
    return [line + (f"; tested on {tested} s ({split})" if tested else "")]

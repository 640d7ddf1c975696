"""``neurovocal bundle``: show or verify a model bundle."""

import json
import shutil
from pathlib import Path
from textwrap import wrap
from typing import Annotated, Any

import typer

from neurovocal.engine.contracts.bundle import (
    DEFAULT_DETECTOR,
    MANIFEST_NAME,
    Bundle,
    DetectorSpec,
    Manifest,
    find_bundle,
    load_bundle,
    read_manifest,
    shipped_bundles,
)
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.lane.offline import (
    build_detector,
    build_front_end,
    build_offline_lane,
)
from neurovocal.engine.support import safe_yaml
from neurovocal.engine.support.text import printable

_TILE = 8  # any: nothing is processed
_ANY_RATE = 32_000  # a detector alone has none

bundle_app = typer.Typer(
    no_args_is_help=True, help="List model bundles, look at one, or verify it."
)

Name = Annotated[str, typer.Argument(metavar="DIR", help="Folder, or a shipped name.")]


@bundle_app.command("list")
def list_bundles(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DIR]", help="Folder of bundles; default: those that ship."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON for programs.")] = False,
) -> None:
    """List the bundles that ship, or those in a folder: species, units, models."""
    if folder is None:
        paths = [find_bundle(name) for name in shipped_bundles()]
    elif not folder.is_dir():
        raise ConfigError(f"'{folder}' is no folder")
    else:
        paths = sorted(path.parent for path in folder.glob(f"*/{MANIFEST_NAME}"))
    rows = [_row(path) for path in paths]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    if not rows:
        typer.echo(f"no bundle in '{folder}'", err=True)
    for row in rows:
        units = row["units"]
        parts = [
            row["species"],
            f"{units} unit{'s' * (units != 1)}" if units else "",
            row["sample_rate"] and f"{row['sample_rate']} Hz",
            ", ".join(row["models"]),
        ]
        typer.echo(printable(row["name"]))
        shown = "; ".join(printable(str(part)) for part in parts if part)
        for line in wrap(shown, _columns(), initial_indent="    "):
            typer.echo(line if line.startswith(" ") else f"    {line}")


def _row(folder: Path) -> dict[str, Any]:
    manifest = read_manifest(folder)
    shown = summary(manifest)
    front_end = manifest.stated_front_end
    return {
        "name": folder.name,
        "species": manifest.species,
        "units": len(shown.get("units", [])),
        "sample_rate": front_end and front_end.sample_rate,
        "models": shown.get("models", []),
        "path": str(folder),
    }


def _columns() -> int:
    return max(40, shutil.get_terminal_size().columns) - 4


@bundle_app.command("check")
def check_bundle(name: Name) -> None:
    """Verify a bundle: checksums, shapes, and golden outputs of every graph."""
    bundle = load_bundle(name)
    for line in verify(bundle):
        typer.echo(printable(line))
    typer.echo(printable(f"{bundle.folder}: correct"))


def verify(bundle: Bundle) -> list[str]:
    """Build every stage of the bundle; each verifies its golden outputs.

    Raises
    ------
    BundleError
        One sentence per problem.
    """
    manifest = bundle.manifest
    lines = []
    if manifest.detector_network is not None:
        build_detector(bundle, DetectorSpec(plugin="network"), _ANY_RATE, "check")
        lines.append("detector network: golden outputs reproduced")
    if manifest.stated_front_end is None:
        return lines
    front_end = manifest.front_end
    parts = {"classifier": manifest.classifier, "rnn_rbm": manifest.rnn_rbm}
    models = [name for name, spec in parts.items() if spec is not None]
    build_front_end(front_end, bundle)
    build_offline_lane(
        bundle,
        manifest.detector or DetectorSpec(plugin=DEFAULT_DETECTOR),
        {name: {} for name in models},
        purpose="check",
        tile=_TILE,
    )
    lines.append(f"front end {front_end.plugin}: {front_end.n_bins} bins")
    lines += [f"{name}: golden outputs reproduced" for name in models]
    if manifest.forecast is not None:  # the classifier model has checked it, too
        lines.append("forecast: golden outputs reproduced")
    return lines


@bundle_app.command("show")
def show_bundle(
    name: Name,
    as_json: Annotated[bool, typer.Option("--json", help="JSON for programs.")] = False,
) -> None:
    """Print purpose, training and models of a bundle; --json prints the manifest."""
    manifest = load_bundle(name).manifest
    content = manifest.model_dump(mode="json", by_alias=True, exclude={"files"})
    if as_json:
        typer.echo(json.dumps(content))
    else:
        typer.echo(
            safe_yaml.dump(summary(manifest)),
            nl=False,
        )


def summary(manifest: Manifest) -> dict[str, Any]:
    """Return the manifest's main fields, for people."""
    front_end, training = manifest.stated_front_end, manifest.training
    shown: dict[str, Any] = {
        "name": manifest.name,
        "species": manifest.species,
        "licence": manifest.licence,
        "attribution": manifest.attribution,
        "front_end": front_end
        and f"{front_end.plugin}, {front_end.sample_rate} Hz, "
        f"{front_end.n_bins} bins, frames of {front_end.frame_length} samples, "
        f"one every {front_end.hop_length}",
        "units": [],
        "models": [
            name
            for name in ("classifier", "rnn_rbm", "forecast", "detector_network")
            if getattr(manifest, name) is not None
        ],
    }
    if manifest.classifier is not None:
        shown["units"] = [unit for unit in manifest.classifier.units if unit]
    keys = ("command", "date", "dataset", "split", "seconds", "from", "notes")
    shown["training"] = {key: training[key] for key in keys if training.get(key)}
    shown["figures"] = {
        part: {
            name: value
            for name, value in measures.items()
            if isinstance(value, int | float)
        }
        for part, measures in manifest.figures.items()
        if isinstance(measures, dict)
    }
    return {key: value for key, value in shown.items() if value}

"""``neurovocal discover``: clusters of sounds in recordings without labels."""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from neurovocal.engine.config.plan import base_of
from neurovocal.engine.config.schema import load_config
from neurovocal.engine.contracts.bundle import DEFAULT_DETECTOR, load_bundle
from neurovocal.engine.contracts.errors import EXIT_CLEAN, EXIT_RUNTIME, ConfigError
from neurovocal.engine.contracts.tuning import load_tuner
from neurovocal.engine.support.endpoints import Address
from neurovocal.engine.support.names import at_home
from neurovocal.engine.support.text import printable
from neurovocal.plugins.web.access import Access
from neurovocal.plugins.web.options import (
    BehindProxy,
    Host,
    PasswordFile,
    TokenFile,
    User,
    page_access,
    user_name,
)

if TYPE_CHECKING:
    from neurovocal.models.discovery.discover import Found
    from neurovocal.models.discovery.segments import DetectorChoice

_PORT = 8422
_NEEDED = {"torch": "torch", "sklearn": "scikit-learn"}


class PageChoice(NamedTuple):
    """Address of the page, whether the user named its port, and who may open it."""

    address: Address
    fixed: bool
    access: Access


def discover(
    recordings: Annotated[
        list[str],
        typer.Argument(
            metavar="RECORDINGS...",
            help="Recordings, folders or globs; with --page alone: the folder of a "
            "finished discovery.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="DIR", help="Folder to be made, or gone on with."
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="C",
            help="Take the detector from this configuration or preset (songbird, "
            "mouse-ultrasound, ...); default: the bundle's detector, or `bands`.",
        ),
    ] = None,
    bundle: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Bundle whose detector is used, and whose RNN-RBM adds features.",
        ),
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(
            metavar="TABLE", help="Fit a detector to the calls in this table first."
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--label", metavar="NAME", help="With --like: only calls with this label."
        ),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(help="Channels to use, from 1, such as '2' or '1,2'; default: 1."),
    ] = None,
    min_size: Annotated[
        int | None,
        typer.Option(
            "--min-size",
            metavar="N",
            min=2,
            max=100_000,
            help="Least number of segments in a cluster; default: half the square root "
            "of all, 5 at least.",
        ),
    ] = None,
    membership: Annotated[
        float,
        typer.Option(
            metavar="P",
            min=0.0,
            max=1.0,
            help="Segments that belong less surely to their cluster stay unknown.",
        ),
    ] = 0.05,
    updates: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, max=1_000_000, help="Updates of the autoencoder."
        ),
    ] = 1500,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of all draws.")] = 0,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Begin anew where DIR holds another discovery."
        ),
    ] = False,
    page: Annotated[
        bool,
        typer.Option("--page", help="Show the map on a page at the end, to name it."),
    ] = False,
    author: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who names; default: you.")
    ] = None,
    host: Host = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help=f"Port; 0: any that is free. Default: {_PORT}, or the next free one.",
        ),
    ] = None,
    token_file: TokenFile = None,
    user: User = None,
    password_file: PasswordFile = None,
    behind_proxy: BehindProxy = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON for programs.")] = False,
) -> None:
    """Find kinds of sounds in recordings without labels: clusters on a map.

    Writes DIR/annotations.csv, a draft with the clusters c1, c2, ... as labels,
    for `review` and `train`. Ctrl-C keeps what is done; the same command goes on.
    --page DIR shows the map, to name, merge and split clusters.
    """
    _require()
    number = _PORT if port is None else port
    address, access = page_access(
        host, number, token_file, user, password_file, behind_proxy
    )
    shown = PageChoice(address, port is not None, access)
    if out is None:
        if not page:
            raise ConfigError("--out DIR is missing: name a folder to be made")
        if len(recordings) > 1:
            raise ConfigError("--page alone takes the one folder of a discovery")
        out = at_home(recordings[0])
        _check_finished(out)
        _serve(out, shown, author)
        raise typer.Exit(EXIT_CLEAN)
    out = at_home(out)
    if kind is not None and like is None:
        raise ConfigError("--label chooses among examples: add --like TABLE")
    given = [n for n, v in (("--config", config), ("--like", like)) if v is not None]
    if len(given) > 1:
        raise ConfigError(
            "--like and --config exclude each other: both give the detector"
        )
    from neurovocal.models.discovery.folder import DiscoveryFolder, Request
    from neurovocal.models.discovery.segments import find_files

    files = find_files(recordings)
    numbers = _channel_numbers(channels)
    detector = _detector(config, bundle, like, kind, files, numbers)
    request = Request(
        recordings=tuple(str(path) for path in files),
        channels=numbers,
        detector={"plugin": detector.plugin, "options": dict(detector.options)},
        bundle=str(detector.bundle.folder) if detector.bundle else "",
        seed=seed,
        updates=updates,
        min_size=min_size or 0,
        membership=membership,
    )
    folder = DiscoveryFolder(out)
    if problems := folder.problems(request, overwrite=overwrite):
        raise ConfigError(problems)
    found = _run(folder, request, detector, overwrite)
    _report(found, out, as_json, page)
    if page:
        _serve(out, shown, author)
    raise typer.Exit(EXIT_RUNTIME if found.set_aside else EXIT_CLEAN)


def _run(folder: Any, request: Any, detector: Any, overwrite: bool) -> "Found":
    from neurovocal.models.discovery.discover import Discovery
    from neurovocal.models.toolkit.loop import stop_on_signal
    from neurovocal.models.toolkit.progress import Reporter

    with stop_on_signal() as stop:
        discovery = Discovery(folder, request, detector, Reporter(), stop)
        return discovery.run(overwrite=overwrite)


def _require() -> None:
    """Raise ConfigError where packages of the extra are not installed."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        names = " and ".join(_NEEDED[name] for name in missing)
        verb = "is" if len(missing) == 1 else "are"
        raise ConfigError(
            f"discover needs {names}, which {verb} not installed: "
            "pip install 'neurovocal[discover]'"
        )


def _detector(
    config: str | None,
    bundle: str | None,
    like: Path | None,
    kind: str | None,
    files: Sequence[Path],
    channels: tuple[int, ...],
) -> "DetectorChoice":
    """Return the detector of the options, as `detect` and `label` choose it."""
    from neurovocal.models.discovery.segments import DetectorChoice

    loaded = load_bundle(bundle) if bundle is not None else None
    base = Path.cwd()
    plugin: str = DEFAULT_DETECTOR
    options: dict[str, Any] = {}
    if like is not None:
        found = load_tuner()(
            like,
            list(files),
            label=kind,
            channels=channels if channels != (1,) else (),
            tell=lambda sentence: typer.echo(printable(sentence), err=True),
        )
        plugin, options = found["plugin"], found["options"]
    elif config is not None:
        checked, located = load_config(config)
        stage = checked.lanes[0].detector
        base = base_of(located.name)
        if stage is not None:
            plugin, options = stage.plugin, dict(stage.options)
    elif loaded is not None and loaded.manifest.detector is not None:
        spec = loaded.manifest.detector
        plugin, options = spec.plugin, dict(spec.options)
    choice = DetectorChoice(plugin, options, loaded, base)
    choice.checked()
    return choice


def _channel_numbers(channels: str | None) -> tuple[int, ...]:
    numbers = [part.strip() for part in channels.split(",")] if channels else ["1"]
    if any(not (n.isascii() and n.isdigit() and 0 < int(n) < 10_000) for n in numbers):
        raise typer.BadParameter(
            f"'{channels}' is not a list of channel numbers, from 1, such as '1,2'",
            param_hint="--channels",
        )
    return tuple(sorted({int(number) for number in numbers}))


def _check_finished(path: Path) -> None:
    from neurovocal.models.discovery.folder import DiscoveryFolder

    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise ConfigError(
            f"'{path}' {what}: name the folder of a discovery, or discover first: "
            "neurovocal discover RECORDINGS --out DIR"
        )
    folder = DiscoveryFolder(path)
    if not folder.state():
        raise ConfigError(
            f"'{path}' holds no discovery: neurovocal discover RECORDINGS --out DIR "
            "--page"
        )
    if not folder.is_finished:
        raise ConfigError(
            f"the discovery in '{path}' is not finished: run its command again first"
        )


def _report(found: "Found", out: Path, as_json: bool, page: bool) -> None:
    from neurovocal.models.discovery.discover import as_dict

    if as_json:
        typer.echo(json.dumps(as_dict(found, out)))
        return
    s = "" if found.clusters == 1 else "s"
    recordings = (
        "1 recording" if found.recordings == 1 else (f"{found.recordings} recordings")
    )
    typer.echo(
        printable(
            f"{found.segments} segments of {recordings} in {found.clusters} "
            f"cluster{s}; {found.unknown} are in none and stay 'unknown'"
        )
    )
    if not found.clusters:
        typer.echo(
            "no kind of sound is frequent enough for a cluster: give more recordings, "
            "or a lower --min-size"
        )
    typer.echo(printable(f"draft annotations: {out / 'annotations.csv'}"))
    if not page:
        _tell(f"now name the clusters: neurovocal discover --page {out}")
        _tell(f"or correct them: neurovocal review {out}")


def _serve(folder: Path, page: PageChoice, author: str | None) -> None:
    """Serve the page of a finished discovery until Ctrl-C."""
    from neurovocal.models.discovery.folder import DiscoveryFolder
    from neurovocal.models.discovery.page import DiscoveryPage
    from neurovocal.plugins.web.serving import serve_until_stopped, start_page

    shown = DiscoveryPage(DiscoveryFolder(folder), author or user_name())
    server = start_page(shown.routes, page.access, page.address, fixed=page.fixed)

    def announce() -> None:
        typer.echo(f"the map is at {server.url}discover")
        _tell("Ctrl-C ends it")

    serve_until_stopped(server, announce)
    _tell(f"changes are kept in '{folder}'; annotations.csv is what was exported last")


def _tell(sentence: str) -> None:
    typer.echo(printable(sentence), err=True)

"""``neurovocal generate``: generate song with a bundle and write it to a file."""

import importlib.util
import io
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress

from neurovocal.engine.config.claims import refuse_overlap
from neurovocal.engine.contracts.bundle import Bundle, FrontEnd, load_bundle
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.types import Float32
from neurovocal.engine.support.text import printable
from neurovocal.models.generation.generator import (
    PlannedGenerator,
    SequenceGenerator,
    SungUnit,
    read_seed_frames,
)
from neurovocal.models.generation.pictures import draw_song
from neurovocal.models.toolkit.files import write_file, write_npz
from neurovocal.plugins.features.inverse import InverseSpectrogram
from neurovocal.plugins.models.rnn_rbm.sampler import Feedback
from neurovocal.plugins.pictures import has_matplotlib, require_matplotlib
from neurovocal.plugins.storage.existing import any_of
from neurovocal.plugins.storage.text_file import output_problems

_KINDS = {
    ".wav": any_of("a WAV file", b"RIFF"),
    ".png": any_of("a PNG picture", b"\x89PNG"),
    ".npz": any_of("an npz file", b"PK"),
    ".csv": any_of("a table of morphs", b"file,share,"),
}
# What each option writes, and the end of its name.
_WRITTEN = {
    "--out": ("sound is written as WAV", ".wav"),
    "--frames": ("frames are written as npz", ".npz"),
    "--picture": ("a picture is a PNG", ".png"),
    "--explain": ("a picture is a PNG", ".png"),
}
_MORPH = re.compile(r"morph-\d+\.wav")
# Seconds of the seed in an explanation: of a recording, of golden frames.
_RECORDING_S = 3.0
_GOLDEN_S = 0.5


def generate(
    bundle: Annotated[
        str, typer.Argument(help="Bundle, or the name of one that ships.")
    ] = "bengalese-finch",
    seconds: Annotated[
        float | None,
        typer.Option(
            "--seconds",
            "-s",
            metavar="S",
            min=0.05,
            max=3600.0,
            help="Of song; default: 10, with --units as long as these are.",
        ),
    ] = None,
    units: Annotated[
        str | None,
        typer.Option(
            metavar="U", help='Units to sing, such as "i i a b c" (bundle with a plan).'
        ),
    ] = None,
    planned: Annotated[
        bool,
        typer.Option(
            "--planned",
            help="Sing after a plan: units drawn one by one, after those of --units.",
        ),
    ] = False,
    temperature: Annotated[
        float,
        typer.Option(metavar="T", min=0.0, max=10.0, help="1 is the model's own."),
    ] = 1.0,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of all draws.")] = 0,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="F", help="WAV file to be made.")
    ] = Path("song.wav"),
    feedback: Annotated[
        Feedback, typer.Option(help="What a drawn frame is, and the next one follows.")
    ] = "mean_residual",
    gibbs_steps: Annotated[
        int | None,
        typer.Option(
            metavar="K", min=1, max=10_000, help="Per frame; default: the bundle's."
        ),
    ] = None,
    prime: Annotated[
        Path | None,
        typer.Option(metavar="F", help="Recording to go on from (first channel)."),
    ] = None,
    frames: Annotated[
        Path | None,
        typer.Option(metavar="F", help="npz file for the drawn frames, too."),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            metavar="F", help="PNG of the spectrogram; default: beside the WAV file."
        ),
    ] = None,
    explain: Annotated[
        Path | None,
        typer.Option(
            metavar="F",
            help="PNG of what the model made of it: reconstruction, hidden units, "
            "free energy, what changed its state.",
        ),
    ] = None,
    morph: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="A B",
            help="Two recordings of one vocalization each: write sounds between them "
            "into the folder --out instead.",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=2,
            max=1000,
            help="With --morph: number of sounds, both ends included; default: 7.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing files.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON for programs.")] = False,
) -> None:
    """Generate song with a bundle's RNN-RBM: audio, and a picture of it.

    With --units it sings these units, with --planned units that the bundle's forecast
    draws; --json lists them with their times. The same bundle, options and seed give
    the same file. Ctrl-C keeps what was sung until then. --morph A B writes graded
    sounds between two renditions instead.
    """
    if morph is not None:
        others = {
            "--prime": prime,
            "--frames": frames,
            "--picture": picture,
            "--explain": explain,
            "--units": units,
            "--planned": planned or None,
            "--seconds": seconds,
            "--gibbs-steps": gibbs_steps,
            # A morph draws nothing.
            "--temperature": None if temperature == 1.0 else temperature,
            "--seed": seed or None,
            "--feedback": None if feedback == "mean_residual" else feedback,
        }
        rows = _morph(bundle, morph, steps or 7, out, others, overwrite=overwrite)
        _print_morphs(rows, out, as_json)
        return
    if steps is not None:
        raise ConfigError("--steps is of --morph: add --morph A B")
    if temperature == 0:
        raise ConfigError("--temperature must be above 0")
    has_plan = planned or units is not None
    _check_plan(
        {"--prime": prime, "--explain": explain} if has_plan else {},
        "--seconds: the units are as long as they are: add --planned to sing on after "
        "them"
        if units is not None and not planned and seconds is not None
        else None,
    )
    if picture is not None:
        require_matplotlib("--picture")
    if explain is not None:
        _require_onnx()
    if prime is not None and not prime.is_file():
        problem = "is a folder" if prime.is_dir() else "does not exist"
        raise ConfigError(f"--prime: recording '{prime}' {problem}")
    named = {
        "--out": out,
        "--frames": frames,
        "--picture": picture,
        "--explain": explain,
    }
    _check_names(named)
    pictured = picture
    is_pipe_or_device = out.exists() and not out.is_file()
    if picture is None and has_matplotlib() and not is_pipe_or_device:
        pictured = out.with_suffix(".png")
    written = [path for path in (out, frames, pictured, explain) if path is not None]
    loaded = load_bundle(bundle)
    reads = {"bundle": [loaded.folder], "recording": [prime] if prime else []}
    _check_outputs(written, reads, overwrite=overwrite)
    inverse = InverseSpectrogram(loaded.manifest.front_end, loaded)
    generator: SequenceGenerator | PlannedGenerator
    front_end = loaded.manifest.front_end
    per_s = front_end.sample_rate / front_end.hop_length
    length = max(2, round((10.0 if seconds is None else seconds) * per_s))
    n_frames: int | None = length
    if has_plan:
        n_frames = length if planned else None
        generator = PlannedGenerator(
            loaded,
            units or "",
            goes_on=planned,
            temperature=temperature,
            gibbs_steps=gibbs_steps,
            feedback=feedback,
            seed=seed,
        )
        parts = generator.generate(n_frames)
    else:
        generator = SequenceGenerator(
            loaded,
            read_seed_frames(loaded, prime) if prime else None,
            temperature=temperature,
            gibbs_steps=gibbs_steps,
            feedback=feedback,
            seed=seed,
        )
        parts = generator.generate(length)
    song, samples = _generate_song(parts, inverse, n_frames)
    figures = _write(out, samples, front_end.sample_rate)
    if frames is not None:
        write_npz(frames, {"frames": song}, compressed=False)
    if pictured is not None:
        title = f"{loaded.manifest.name}, temperature {temperature:g}, seed {seed}"
        draw_song(pictured, loaded, song, title)
    moments = None
    if explain is not None and isinstance(generator, SequenceGenerator):
        moments = _explain(
            explain, loaded, generator.seed_frames, song, recorded=bool(prime)
        )
    result = {
        "bundle": loaded.manifest.name,
        "seed": seed,
        "temperature": temperature,
        "feedback": feedback,
        "gibbs_steps": generator.gibbs_steps,
        "prime": prime and str(prime),
        "n_frames": len(song),
        **figures,
        "out": str(out),
        "frames": frames and str(frames),
        "picture": pictured and str(pictured),
        "explanation": explain and str(explain),
        "moments": moments,
    }
    if isinstance(generator, PlannedGenerator):
        result["units"] = _times(generator.sung, front_end)
    _print_result(result, as_json)


def _check_plan(outside: Mapping[str, Path | None], problem: str | None) -> None:
    """Raise ConfigError for options that a planned song does not have."""
    problems = [
        f"{option}: a planned song begins in silence, with a network of its own: leave "
        "--units and --planned out, or this"
        for option, path in outside.items()
        if path is not None
    ]
    problems += [problem] if problem else []
    if problems:
        raise ConfigError(problems)


def _times(sung: Sequence[SungUnit], front_end: FrontEnd) -> list[dict[str, Any]]:
    """Return unit, onset and offset of each planned unit, in seconds of the sound."""
    half = (front_end.frame_length - front_end.hop_length) / 2

    def at_s(frame: int) -> float:
        return round((frame * front_end.hop_length + half) / front_end.sample_rate, 4)

    return [
        {"unit": u.unit, "onset_s": at_s(u.first), "offset_s": at_s(u.stop)}
        for u in sung
    ]


def _morph(
    name: str,
    renditions: tuple[Path, Path],
    n_steps: int,
    folder: Path,
    others: Mapping[str, Any],
    *,
    overwrite: bool,
) -> list[dict[str, Any]]:
    """Write sounds between two renditions and a table of them; return its rows."""
    from neurovocal.models.generation.morph import morphs, read_rendition

    # Of an option that is given twice, the command line passes the last one on.
    if sys.argv.count("--morph") > 1:
        raise ConfigError("--morph is given twice: make one morph at a time")
    given = [option for option, value in others.items() if value is not None]
    if given:
        raise ConfigError(f"{given[0]} and --morph exclude each other")
    if folder == Path("song.wav"):
        raise ConfigError("--morph needs --out DIR, the folder of the sounds")
    if any(str(path).startswith("-") and not path.exists() for path in renditions):
        raise ConfigError("--morph takes two recordings: --morph A B")
    problems = [
        f"--morph: recording '{path}' "
        f"{'is a folder' if path.is_dir() else 'does not exist'}"
        for path in renditions
        if not path.is_file()
    ]
    if folder.exists() and not folder.is_dir():
        problems.append(f"--out '{folder}' is a file: with --morph it is a folder")
    if problems:
        raise ConfigError(problems)
    digits = len(str(n_steps))
    sounds = [folder / f"morph-{n:0{digits}}.wav" for n in range(1, n_steps + 1)]
    table = folder / "morphs.csv"
    loaded = load_bundle(name)
    if folder.is_dir():
        reads = {"bundle": [loaded.folder], "recording": list(renditions)}
        _check_outputs([*sounds, table], reads, overwrite=True)
        there = [path.name for path in (*sounds, table) if path.is_file()]
        if there and not overwrite:
            more = f" and {len(there) - 1} more of these files" if there[1:] else ""
            raise ConfigError(
                f"--out '{folder}' holds '{there[0]}'{more} already: choose another "
                "folder, or --overwrite"
            )
        if older := _older_sounds(folder, sounds):
            more = f" and {len(older) - 1} more" if older[1:] else ""
            raise ConfigError(
                f"--out '{folder}' holds '{older[0]}'{more}, which would stay beside "
                f"the {n_steps} new sounds: remove them, or choose another folder"
            )
    first, second = (read_rendition(loaded, path) for path in renditions)
    shares = [float(share) for share in np.linspace(0, 1, n_steps)]
    made = list(morphs(loaded, first, second, shares))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--out '{folder}' cannot be made: {error.strerror}"
        ) from error
    rows = []
    for path, one in zip(sounds, made, strict=True):
        figures = _write(path, one.samples, loaded.manifest.front_end.sample_rate)
        rows.append({"file": path.name, "share": round(one.share, 6), **figures})
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    write_file(table, ("\n".join(lines) + "\n").encode())
    return rows


def _older_sounds(folder: Path, written: Sequence[Path]) -> list[str]:
    """Return the names of sounds of another morph that are not written again."""
    names = {path.name for path in folder.iterdir()} - {path.name for path in written}
    return sorted(name for name in names if _MORPH.fullmatch(name))


def _print_morphs(rows: list[dict[str, Any]], folder: Path, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"out": str(folder), "morphs": rows}))
        return
    for row in rows:
        sound = f"{folder / str(row['file'])}: {row['seconds']:g} s"
        typer.echo(printable(f"{sound}, {row['share']:.3f} of the second"))


def _check_names(outputs: Mapping[str, Path | None]) -> None:
    """Raise ConfigError unless the names of outputs tell what is written to them."""
    problems = []
    for option, path in outputs.items():
        what, suffix = _WRITTEN[option]
        if path in (Path(), Path("-")):
            problems.append(f"{option} needs the name of a file")
        elif path is not None and path.suffix.lower() not in ("", suffix):
            problems.append(f"{option} '{path}': {what}: end it in {suffix}")
    if problems:
        raise ConfigError(problems)


def _require_onnx() -> None:
    """Raise where the packages for ``--explain`` are not installed."""
    require_matplotlib("--explain")
    if importlib.util.find_spec("onnx") is None:
        raise ConfigError(
            "--explain needs onnx, which is not installed: pip install onnx (it comes "
            "with the extra 'train', too)"
        )


def _explain(
    path: Path, bundle: Bundle, seed_frames: Float32, song: Float32, *, recorded: bool
) -> list[dict[str, Any]]:
    """Draw the model's variables over seed and song; return the largest changes."""
    from neurovocal.models.generation.explain import (
        draw_explanation,
        explain,
        largest_changes,
    )

    front_end = bundle.manifest.front_end
    per_s = front_end.sample_rate / front_end.hop_length
    shown_s = _RECORDING_S if recorded else _GOLDEN_S
    n_seed = min(len(seed_frames), round(shown_s * per_s))
    frames = np.concatenate([seed_frames, song])
    explanation = explain(bundle, frames, n_seed + len(song))
    draw_explanation(path, bundle, explanation, n_seed, bundle.manifest.name)
    return largest_changes(bundle, explanation, n_seed)


def _check_outputs(
    paths: Sequence[Path], reads: Mapping[str, Sequence[Path]], *, overwrite: bool
) -> None:
    """Raise ConfigError if a file may not be written; all mistakes at once."""
    problems = [
        problem
        for path in paths
        for problem in output_problems(str(path), _KINDS.get(path.suffix.lower()))
    ]
    try:
        refuse_overlap("output", reads, paths)
    except ConfigError as error:
        problems += error.problems
    resolved = [os.path.realpath(path) for path in paths]
    problems += [
        f"'{path}' would be written twice: give each output a name of its own"
        for number, path in enumerate(paths)
        if resolved[number] in resolved[:number]
    ]
    if not overwrite:
        problems += [
            f"'{path}' exists already: choose another name, or --overwrite"
            for path in paths
            if path.is_file()
        ]
    if problems:
        raise ConfigError(problems)


def _generate_song(
    parts: Iterator[Float32], inverse: InverseSpectrogram, n_frames: int | None
) -> tuple[Float32, Float32]:
    """Generate frames and their audio; Ctrl-C ends the song early."""
    frames: list[Float32] = []
    samples: list[Float32] = []
    try:
        for part in _with_progress(parts, n_frames):
            # Both or neither: Ctrl-C leaves no frame without its samples.
            converted = inverse.process(part)
            frames.append(part)
            samples.append(converted)
    except KeyboardInterrupt:
        if not frames:
            raise
        typer.echo("stopped: the song until now is kept", err=True)
    samples.append(inverse.flush())
    return np.concatenate(frames), np.concatenate(samples)


def _with_progress(parts: Iterator[Float32], n_frames: int | None) -> Iterator[Float32]:
    """Yield `parts`, with a progress bar where stderr is a terminal."""
    console = Console(stderr=True)
    with Progress(
        console=console, transient=True, disable=not sys.stderr.isatty()
    ) as bar:
        task = bar.add_task("generating", total=n_frames)
        for part in parts:
            yield part
            bar.advance(task, len(part))


def _write(path: Path, samples: Float32, sample_rate: int) -> dict[str, Any]:
    """Write a 16-bit WAV file; return duration, level and number of clipped samples."""
    import soundfile

    clipped = int(np.count_nonzero(np.abs(samples) > 1))
    samples = np.clip(samples, -1, 1)
    stream = io.BytesIO()
    soundfile.write(stream, samples, sample_rate, "PCM_16", format="WAV")
    write_file(path, stream.getvalue())
    rms = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    return {
        "seconds": round(len(samples) / sample_rate, 3),
        "sample_rate": sample_rate,
        "rms_db": round(20 * np.log10(max(rms, 1e-9)), 2),
        "clipped": clipped,
    }


def _print_result(result: dict[str, Any], as_json: bool) -> None:
    """Print the written files and the largest changes, or all as JSON."""
    if as_json:
        typer.echo(json.dumps(result))
        return
    sound = f"{result['out']}: {result['seconds']:g} s, {result['rms_db']:g} dB"
    typer.echo(printable(sound))
    if "units" in result:
        typer.echo(printable("units: " + " ".join(u["unit"] for u in result["units"])))
    for path in (result["picture"], result["frames"], result["explanation"]):
        if path:
            typer.echo(printable(str(path)))
    for moment in result["moments"] or ():
        low, high = moment["bins"]
        typer.echo(
            f"{moment['s']:8.3f} s  the state moved by {moment['change']:.2f}, most "
            f"by bins {low} to {high - 1}"
        )
    if result["clipped"]:
        typer.echo(f"warning: {result['clipped']} samples were clipped", err=True)
    if not result["picture"]:
        typer.echo(
            "no picture: pip install matplotlib (it comes with the extra 'train')",
            err=True,
        )

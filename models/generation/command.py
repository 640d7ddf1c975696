"""``neurovocal generate``: a bundle sings into a file, faster than in real time."""

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress

from neurovocal.engine.contracts.bundle import Bundle, load_bundle
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.types import Float32
from neurovocal.models.generation.generator import (
    SequenceGenerator,
    frames_of_recording,
)
from neurovocal.models.generation.pictures import can_draw, draw_song, need_drawing
from neurovocal.plugins.features.inverse import InverseSpectrogram
from neurovocal.plugins.models.rnn_rbm.sampler import Feedback
from neurovocal.plugins.storage.text_file import output_problems

# Seconds of the past that an explanation shows: of a recording, of the bundle's own.
_PAST_S = 3.0
_GOLDEN_S = 0.5


def generate(
    bundle: Annotated[
        str, typer.Argument(help="Bundle, or the name of one that ships.")
    ] = "bengalese-finch",
    seconds: Annotated[
        float, typer.Option("--seconds", "-s", metavar="S", min=0.05, help="Of song.")
    ] = 10.0,
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
        typer.Option(metavar="K", min=1, help="Per frame; default: the bundle's."),
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
    as_json: Annotated[bool, typer.Option("--json", help="JSON for programs.")] = False,
) -> None:
    """Let a bundle's RNN-RBM sing: sound, and a picture of its spectrogram.

    The same bundle, options and seed give the same file. Ctrl-C keeps what was sung
    until then.
    """
    if temperature == 0:
        raise ConfigError("--temperature must be above 0")
    if out.suffix.lower() not in ("", ".wav"):
        raise ConfigError(f"--out '{out}': sound is written as WAV: end it in .wav")
    if picture is not None:
        need_drawing("--picture")
    if explain is not None:
        _need_for_explaining()
    if prime is not None and not prime.is_file():
        raise ConfigError(f"recording '{prime}' does not exist")
    _can_be_written(out, frames, picture, explain)
    loaded = load_bundle(bundle)
    voice = InverseSpectrogram(loaded.manifest.front_end, loaded.folder)
    past = frames_of_recording(loaded, prime) if prime else None
    singer = SequenceGenerator(
        loaded,
        past,
        temperature=temperature,
        gibbs_steps=gibbs_steps,
        feedback=feedback,
        seed=seed,
    )
    front_end = loaded.manifest.front_end
    n_frames = max(2, round(seconds * front_end.sample_rate / front_end.hop_length))
    song, samples = _sing(singer, voice, n_frames)
    figures = _write(out, samples, front_end.sample_rate)
    if frames is not None:
        np.savez(frames.open("wb"), frames=song)
    picture = picture or (out.with_suffix(".png") if can_draw() else None)
    if picture is not None:
        title = f"{loaded.manifest.name}, temperature {temperature:g}, seed {seed}"
        draw_song(picture, loaded, song, title)
    moments = None
    if explain is not None:
        moments = _explain(explain, loaded, singer.past, song, whole_past=bool(prime))
    made = {
        "bundle": loaded.manifest.name,
        "seed": seed,
        "temperature": temperature,
        "feedback": feedback,
        "gibbs_steps": singer.gibbs_steps,
        "prime": prime and str(prime),
        "n_frames": len(song),
        **figures,
        "out": str(out),
        "frames": frames and str(frames),
        "picture": picture and str(picture),
        "explanation": explain and str(explain),
        "moments": moments,
    }
    _tell(made, as_json)


def _need_for_explaining() -> None:
    need_drawing("--explain")
    if importlib.util.find_spec("onnx") is None:
        raise ConfigError(
            "--explain needs onnx, which is not installed: pip install onnx (it comes "
            "with the extra 'train', too)"
        )


def _explain(
    path: Path, bundle: Bundle, past: Float32, song: Float32, *, whole_past: bool
) -> list[dict[str, Any]]:
    """Draw what the model made of the song and of what it heard before."""
    from neurovocal.models.generation.explain import draw_explanation, explain, moments

    front_end = bundle.manifest.front_end
    per_s = front_end.sample_rate / front_end.hop_length
    n_past = min(len(past), round((_PAST_S if whole_past else _GOLDEN_S) * per_s))
    found = explain(bundle, np.concatenate([past, song]), n_past + len(song))
    draw_explanation(path, bundle, found, n_past, bundle.manifest.name)
    return moments(bundle, found, n_past)


def _can_be_written(*paths: Path | None) -> None:
    problems = [
        problem for path in paths if path for problem in output_problems(str(path))
    ]
    if problems:
        raise ConfigError(problems)


def _sing(
    singer: SequenceGenerator, voice: InverseSpectrogram, n_frames: int
) -> tuple[Float32, Float32]:
    """Frames and their sound; Ctrl-C ends the song early."""
    drawn: list[Float32] = []
    sound: list[Float32] = []
    try:
        for part in _watched(singer.sing(n_frames), n_frames):
            # Both or neither: a frame without its sound is not kept.
            pieces = voice.process(part)
            drawn.append(part)
            sound.append(pieces)
    except KeyboardInterrupt:
        if not drawn:
            raise
        typer.echo("stopped: what was sung until now is kept", err=True)
    sound.append(voice.flush())
    return np.concatenate(drawn), np.concatenate(sound)


def _watched(parts: Iterator[Float32], n_frames: int) -> Iterator[Float32]:
    """A progress bar on stderr, where a person watches it."""
    console = Console(stderr=True)
    with Progress(
        console=console, transient=True, disable=not sys.stderr.isatty()
    ) as bar:
        task = bar.add_task("singing", total=n_frames)
        for part in parts:
            yield part
            bar.advance(task, len(part))


def _write(path: Path, samples: Float32, sample_rate: int) -> dict[str, Any]:
    """Write 16-bit WAV; say how loud it is and how much was clipped."""
    import soundfile

    clipped = int(np.count_nonzero(np.abs(samples) > 1))
    samples = np.clip(samples, -1, 1)
    try:
        soundfile.write(path, samples, sample_rate, "PCM_16", format="WAV")
    except (OSError, soundfile.LibsndfileError) as error:
        raise ConfigError(f"'{path}' cannot be written: {error}") from error
    rms = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    return {
        "seconds": round(len(samples) / sample_rate, 3),
        "sample_rate": sample_rate,
        "rms_db": round(20 * np.log10(max(rms, 1e-9)), 2),
        "clipped": clipped,
    }


def _tell(made: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(made))
        return
    typer.echo(f"{made['out']}: {made['seconds']:g} s, {made['rms_db']:g} dB")
    for path in (made["picture"], made["frames"], made["explanation"]):
        if path:
            typer.echo(path)
    for moment in made["moments"] or ():
        low, high = moment["bins"]
        typer.echo(
            f"{moment['s']:8.3f} s  the state moved by {moment['change']:.2f}, most "
            f"by bins {low} to {high - 1}"
        )
    if made["clipped"]:
        typer.echo(f"warning: {made['clipped']} samples were clipped", err=True)
    if not made["picture"]:
        typer.echo(
            "no picture: pip install matplotlib (it comes with the extra 'train')",
            err=True,
        )

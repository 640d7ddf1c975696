"""Model `latent`: codes of segments by the encoder of a discovery."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch

from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import (
    Block,
    Gap,
    Latent,
    Offset,
    Onset,
    StreamInfo,
)
from neurovocal.engine.testing import check_model, recut
from neurovocal.models.discovery.autoencoder import decoder_graph, encoder_graph
from neurovocal.models.discovery.vae import Vae, VaeSettings
from neurovocal.plugins.features.patches import (
    N_BINS,
    N_COLUMNS,
    PatchMaker,
    PatchSpec,
)
from neurovocal.plugins.models.latent import load_encoder, plugin

RATE = 8000
SPEC = PatchSpec(12.0, 300.0, 3600.0, 2000.0, longest_s=0.2)
SPANS = ((4000, 4800), (9000, 9700), (20_000, 21_500))


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    vae = Vae(N_COLUMNS * N_BINS, VaeSettings(n_latent=4, n_hidden=8))
    graph = encoder_graph(vae, (N_COLUMNS, N_BINS))
    (tmp_path / "encoder.onnx").write_bytes(graph.SerializeToString())
    (tmp_path / "discovery.json").write_text(json.dumps({"patches": asdict(SPEC)}))
    return tmp_path


def model(folder):
    options = plugin.options(folder=str(folder))
    info = StreamInfo("cage", RATE)
    return plugin.build(options, BuildContext(ManualClock(), "test", info=info))


def song(n_samples=24_000, spans=SPANS):
    samples = np.random.default_rng(0).normal(0, 1e-3, n_samples)
    for number, (onset, offset) in enumerate(spans):
        t = np.arange(offset - onset)
        samples[onset:offset] += 0.3 * np.sin((0.5 + 0.3 * number) * t)
    return samples.astype(np.float32)[:, None]


def codes(stage, parts, spans=SPANS):
    """Return the codes, each segment's offset after the block that holds its end."""
    found, left = [], list(enumerate(spans))
    for part in parts:
        found += stage.process(part)
        stop = part.stop if isinstance(part, Gap) else part.start + len(part.samples)
        while left and left[0][1][1] <= stop:
            number, (onset, offset) = left.pop(0)
            found += stage.process(Offset(number, onset, offset, False))
    return [*found, *stage.flush()]


def test_codes_are_those_of_the_segments_patches(folder):
    samples = song()
    found = codes(model(folder), [Block(0, samples)])
    assert [(e.segment, e.onset, e.offset) for e in found] == [
        (n, *span) for n, span in enumerate(SPANS)
    ]
    maker, encode = PatchMaker(SPEC, RATE), load_encoder(folder)
    # The floor is measured once a second; here over the whole, as `discover` does.
    floor = maker.floor(samples[:, 0])
    for event, span in zip(found, SPANS, strict=True):
        assert event.values.shape == (4,)
        expected = encode(maker.patch(samples[:, 0], *span, floor))
        assert np.abs(event.values - expected).max() < 0.05 * np.abs(expected).max()


def test_codes_do_not_depend_on_cuts(folder):
    samples = song()
    whole = codes(model(folder), [Block(0, samples)])
    for lengths in ([64], [1000, 1], [3, 700, 9000]):
        again = codes(model(folder), recut(samples, lengths))
        assert [e.values.tobytes() for e in again] == [
            e.values.tobytes() for e in whole
        ]


def test_a_code_comes_when_its_sound_is_complete(folder):
    stage, samples = model(folder), song()
    assert not list(stage.process(Block(0, samples[:4800])))
    assert not list(stage.process(Offset(0, 4000, 4800, False)))
    after = 4800 + stage.latency
    assert not list(stage.process(Block(4800, samples[4800 : after - 1])))
    (event,) = stage.process(Block(after - 1, samples[after - 1 : after]))
    assert isinstance(event, Latent)
    assert event.model == "latent"


def test_nothing_is_encoded_across_a_gap(folder):
    """A segment at a gap is encoded with the sound until there; none begins before."""
    stage, samples = model(folder), song()
    list(stage.process(Block(0, samples[:4810])))
    assert not list(stage.process(Offset(0, 4000, 4800, False)))
    (event,) = stage.process(Gap(4810, 9300, "overrun"))
    assert event.segment == 0
    list(stage.process(Block(9300, samples[9300:])))
    # A span whose beginning was lost has no code.
    assert not list(stage.process(Offset(1, 9000, 9700, False)))
    (last,) = stage.process(Offset(2, *SPANS[2], False))
    assert last.segment == 2


def test_long_segments_and_long_streams_need_no_more_memory(folder):
    stage = model(folder)
    kept = len(stage._sound._held)
    second = song(RATE, ())
    for k in range(30):
        assert not list(stage.process(Block(k * RATE, second)))
    (event,) = stage.process(Offset(0, 0, 29 * RATE, False))
    assert event.values.shape == (4,)
    assert len(stage._sound._held) == kept


def test_it_conforms(folder):
    items, left = [], list(enumerate(SPANS))
    for block in recut(song(), [64]):
        items.append(block)
        stop = block.start + len(block.samples)
        while left and left[0][1][0] < stop:
            number, (onset, offset) = left[0]
            if not isinstance(items[-1], Onset) and (number, onset) not in begun(items):
                items.append(Onset(number, onset, 1.0))
            if offset > stop:
                break
            items.append(Offset(number, onset, offset, False))
            left.pop(0)
    check_model(lambda: model(folder), items, grid=64)


def begun(items):
    return {(item.segment, item.sample) for item in items if isinstance(item, Onset)}


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("discovery.json", b"{}", "holds no discovery with patches"),
        ("discovery.json", b"[", "holds no discovery with patches"),
        ("encoder.onnx", None, "has no encoder.onnx"),
        ("encoder.onnx", b"x", "is no"),
    ],
)
def test_folders_without_an_encoder_are_refused(folder, name, content, sentence):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    options = plugin.options(folder=str(folder))
    problems = list(plugin.check(options, BuildContext(ManualClock(), "test")))
    assert len(problems) == 1
    assert sentence in str(problems[0])


def test_an_encoder_of_something_else_is_refused(folder):
    vae = Vae(N_COLUMNS * N_BINS, VaeSettings(n_latent=4, n_hidden=8))
    graph = decoder_graph(vae, (N_COLUMNS, N_BINS))
    (folder / "encoder.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(ConfigError, match="takes no patches"):
        load_encoder(folder)

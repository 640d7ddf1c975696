"""Hostile files: bombs, tags, paths, control characters and false headers."""

import io
import logging
import struct
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import yaml
from bundles.tiny_bundle import edit_manifest, make_tiny_bundle
from processes.cli_process import neurovocal

from neurovocal.engine.cli.logs import SentenceFormatter
from neurovocal.engine.config.located_yaml import parse_located
from neurovocal.engine.config.schema import parse_config
from neurovocal.engine.contracts.bundle import load_bundle
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.errors import (
    BundleError,
    ConfigError,
    EndOfStream,
    NeurovocalError,
)
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import Block
from neurovocal.engine.support import safe_yaml
from neurovocal.engine.support.process import process_usage
from neurovocal.plugins.sinks.recording import stream_file_name
from neurovocal.plugins.sources import file as source_file
from neurovocal.plugins.storage.npz import read_npz

NESTED_ALIASES = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)
BOMBS = {
    "a billion laughs": (NESTED_ALIASES, "stands for more than 50000 values"),
    "brackets": ("a: " + "[" * 50_000, "nested too deeply"),
    "levels": ("a: " + "[" * 200 + "]" * 200, "nested too deeply"),
    "megabytes": ("a: " + "x" * (3 * 2**20), "is longer than 2097152 bytes"),
}


@pytest.mark.parametrize(("text", "sentence"), BOMBS.values(), ids=BOMBS)
def test_a_yaml_bomb_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    before_mb = process_usage().rss_mb
    with pytest.raises(ConfigError, match=sentence):
        parse_config(parse_located(text, "bomb.yaml"))
    folder = make_tiny_bundle(tmp_path / "tiny")
    (folder / "manifest.yaml").write_text(text)
    with pytest.raises(BundleError, match=sentence):
        load_bundle(folder)
    assert process_usage().rss_mb - before_mb < 300


@pytest.mark.parametrize(
    "value", ["9" * 5000, "0x" + "f" * 5000, "1:" * 5000 + "1", "2001-99-99"]
)
def test_a_value_that_yaml_cannot_read_is_one_sentence(
    tmp_path: Path, value: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(parse_located(f"version: {value}", "odd.yaml"))
    assert len(str(caught.value)) < 500
    folder = make_tiny_bundle(tmp_path / "tiny")
    (folder / "manifest.yaml").write_text(f"version: {value}")
    with pytest.raises(BundleError):
        load_bundle(folder)


def test_ordinary_yaml_is_read() -> None:
    text = "a: [1, 2.5, true, null, x]\nb: &x {c: d}\ne: *x\n"
    assert safe_yaml.load(text) == yaml.safe_load(text)
    assert safe_yaml.load("") is None


def test_a_manifest_gives_each_key_once(tmp_path: Path) -> None:
    manifest = make_tiny_bundle(tmp_path / "tiny") / "manifest.yaml"
    manifest.write_text(manifest.read_text() + "name: again\n")
    with pytest.raises(BundleError, match=r"yaml:\d+: not valid YAML: 'name' is given"):
        load_bundle(manifest.parent)


@pytest.mark.parametrize("part", ["front_end", "detector"])
def test_a_bundle_cannot_name_a_plugin_file(tmp_path: Path, part: str) -> None:
    folder = make_tiny_bundle(tmp_path / "tiny")
    proof = tmp_path / "proof"
    evil = folder / "evil.py"
    evil.write_text(f"open({str(proof)!r}, 'w')\nplugin = None\n")

    content = yaml.safe_load((folder / "manifest.yaml").read_text("utf-8"))
    named = {**(content.get(part) or {}), "plugin": f"{evil}:plugin"}
    edit_manifest(folder, **{part: named})
    with pytest.raises(BundleError, match="not the name of an installed plugin"):
        load_bundle(folder)
    assert neurovocal("bundle", "check", str(folder)).code == 1
    assert not proof.exists()


def test_an_archive_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    head = io.BytesIO()
    shape = (100 * 2**20,)
    description = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(head, description)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("frames.npy", "w", force_zip64=True) as entry,
    ):
        entry.write(head.getvalue())
        for _ in range(400):
            entry.write(bytes(2**20))
    assert path.stat().st_size < 2**20
    before_mb = process_usage().rss_mb
    with pytest.raises(BundleError, match="bytes unpacked: 268435456 is the most"):
        read_npz(path, "golden vectors", "frames")
    assert process_usage().rss_mb - before_mb < 100


@pytest.mark.parametrize("name", ["..", ".", "", "../../x", "/etc/x", "a/../../b"])
def test_a_stream_s_name_is_no_path(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{stream_file_name(name)}.wav"
    assert path.parent == tmp_path
    folder = tmp_path / stream_file_name(name)
    assert folder.resolve().parent == tmp_path


def test_control_characters_in_errors_are_escaped(tmp_path: Path) -> None:
    name = "\x1b]0;renamed\x07\nerror: forged.wav"
    done = neurovocal("detect", str(tmp_path / name))
    assert done.code != 0
    assert "\x1b" not in done.err
    assert "\x07" not in done.err
    record = logging.LogRecord(
        "neurovocal", logging.WARNING, __file__, 1, "lost %s", (name,), None
    )
    line = SentenceFormatter(tracebacks=False).format(record)
    assert line == r"warning: lost \x1b]0;renamed\x07?error: forged.wav"


def test_control_characters_of_a_bundle_are_refused(tmp_path: Path) -> None:
    folder = make_tiny_bundle(tmp_path / "tiny")
    edit_manifest(folder, species="\x1b[31mred")
    shown = neurovocal("bundle", "show", str(folder))
    assert shown.code == 1
    assert "the control character U+001B" in shown.err
    assert "\x1b" not in shown.out + shown.err


def wav(*, channels: int = 1, rate: int = 8000, claimed: int = 16_000) -> bytes:
    """Return a second of silence with a header of other values."""
    head = struct.pack(
        "<IHHIIHH", 16, 1, channels, rate, rate, 2 * channels % 65536, 16
    )
    body = b"fmt " + head + b"data" + struct.pack("<I", claimed) + bytes(16_000)
    return b"RIFF" + struct.pack("<I", 0xFFFFFFFF) + b"WAVE" + body


@pytest.mark.parametrize(
    ("lie", "samples"),
    [
        ({"claimed": 0xFFFFFFF0}, 8000),
        ({"rate": 10**7}, 8000),
        ({"rate": 10**9}, None),
        ({"channels": 1000}, 8),
        ({"channels": 65535}, None),
        ({"channels": 0}, None),
        ({"rate": 0xFFFFFFFF}, None),
    ],
)
def test_a_false_length_in_a_header_allocates_nothing(
    tmp_path: Path, lie: dict[str, int], samples: int | None
) -> None:
    path = tmp_path / "lie.wav"
    path.write_bytes(wav(**lie))
    options = source_file.FileOptions(path=str(path))
    source = source_file.plugin.build(options, BuildContext(SystemClock(), "run"))
    before_mb, heard = process_usage().rss_mb, 0
    if samples is None:
        with pytest.raises(NeurovocalError):
            source.open()
        return
    source.open()
    with suppress(EndOfStream):
        for _ in range(10_000):
            item = source.read(0.0)
            heard += len(item.samples) if isinstance(item, Block) else 0
    source.close()
    assert heard == samples
    assert process_usage().rss_mb - before_mb < 100


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb: [x, {c: 010}]\nd: !!str 5\n",
        "a: &x [1, 2]\nb: *x\n",
        "",
        "a:\tb\n",
        "a: [1\n",
        "a: 1\n---\nb: 2\n",
        "a: \x01",
        "- " * 50_000 + "a",
        "[" * 50_000,
    ],
)
def test_the_compiled_parser_reads_the_same(text):
    def read(**options):
        try:
            return safe_yaml.load(text, **options)
        except safe_yaml.YamlError as error:
            return str(error), error.line

    assert read(is_written=True) == read()

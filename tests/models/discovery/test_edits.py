"""Changes of clusters by people: names, merges, splits, moves, undo."""

import csv
import io
import json

import numpy as np
import pytest

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.models.discovery.edits import EditedClusters
from neurovocal.models.discovery.folder import DiscoveryFolder
from neurovocal.models.discovery.page import DiscoveryPage


@pytest.fixture
def clusters(found):
    return EditedClusters(DiscoveryFolder(found))


def labels(clusters):
    text = clusters.annotations().decode()
    return [row["label"] for row in csv.DictReader(io.StringIO(text))]


def reopened(found):
    return EditedClusters(DiscoveryFolder(found))


def test_a_name_is_the_label(clusters, found):
    count = labels(clusters).count("c1")
    clusters.change({"kind": "name", "cluster": 0, "name": " tüt  lü "}, "ada")
    assert labels(clusters).count("tüt lü") == count
    assert labels(reopened(found)).count("tüt lü") == count
    clusters.change({"kind": "name", "cluster": 0, "name": ""}, "ada")
    assert labels(clusters).count("c1") == count


def test_merged_clusters_are_one(clusters, found):
    numbers = [each["number"] for each in clusters.clusters()]
    sizes = [each["size"] for each in clusters.clusters()]
    clusters.change({"kind": "name", "cluster": numbers[1], "name": "b"}, "ada")
    clusters.change({"kind": "merge", "clusters": numbers[:2]}, "ada")
    merged = clusters.clusters()[0]
    assert merged["size"] == sizes[0] + sizes[1]
    assert merged["name"] == "b"
    assert [c["size"] for c in reopened(found).clusters()] == [
        c["size"] for c in clusters.clusters()
    ]


def test_moved_segments(clusters):
    clusters.change({"kind": "move", "segments": [3, 1, 3], "cluster": None}, "ada")
    assert [labels(clusters)[k] for k in (1, 3)] == ["unknown"] * 2
    clusters.change({"kind": "move", "segments": [1, 3], "cluster": "new"}, "ada")
    new = labels(clusters)[1]
    assert labels(clusters).count(new) == 2
    clusters.change({"kind": "move", "segments": [1], "cluster": 0}, "ada")
    assert labels(clusters)[1] == clusters.name(0)


def test_split_and_undo(clusters, found):
    numbers = [each["number"] for each in clusters.clusters()]
    before = clusters.labels.copy()
    clusters.change({"kind": "merge", "clusters": numbers}, "ada")
    assert len(clusters.clusters()) == 1
    split = {"kind": "split", "cluster": numbers[0], "min_size": 8}
    clusters.change(split, "ada")
    after = clusters.clusters()
    assert len(after) >= 3
    again = reopened(found)
    np.testing.assert_array_equal(again.labels, clusters.labels)
    again.change({"kind": "undo"}, "bob")
    again.change({"kind": "undo"}, "bob")
    np.testing.assert_array_equal(again.labels, before)
    with pytest.raises(ConfigError, match="no change to take back"):
        again.change({"kind": "undo"}, "bob")


def test_cluster_anew(clusters, found):
    clusters.change({"kind": "name", "cluster": 0, "name": "a"}, "ada")
    clusters.change({"kind": "recluster", "min_size": 8}, "ada")
    assert "a" not in labels(clusters)
    np.testing.assert_array_equal(reopened(found).labels, clusters.labels)


def test_every_change_has_author_and_time(clusters, found):
    clusters.change({"kind": "name", "cluster": 0, "name": "a"}, "ada")
    clusters.change({"kind": "undo"}, "bob")
    events = [
        json.loads(line) for line in (found / "changes.jsonl").read_text().splitlines()
    ]
    assert [(e["kind"], e["author"]) for e in events] == [
        ("name", "ada"),
        ("undo", "bob"),
    ]
    assert all(event["time"].endswith("+00:00") for event in events)


def test_a_line_that_a_kill_cut_short_is_left_out(clusters, found):
    clusters.change({"kind": "name", "cluster": 0, "name": "a"}, "ada")
    with (found / "changes.jsonl").open("a") as file:
        file.write('{"kind": "na')
    assert reopened(found).name(0) == "a"
    again = reopened(found)
    again.change({"kind": "name", "cluster": 0, "name": "b"}, "ada")
    assert reopened(found).name(0) == "b"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"kind": "name", "cluster": 99, "name": "a"}, "no cluster 99"),
        ({"kind": "name", "cluster": "c1", "name": "a"}, "no cluster"),
        ({"kind": "name", "cluster": True, "name": "a"}, "no cluster"),
        ({"kind": "name", "cluster": 0, "name": "c2"}, "merge the two"),
        ({"kind": "name", "cluster": 0, "name": "sil"}, "means silence"),
        ({"kind": "name", "cluster": 0, "name": "a\nb\x00c"}, "printable"),
        ({"kind": "name", "cluster": 0, "name": "a" * 65}, "64 characters"),
        ({"kind": "name", "cluster": 0}, "a name is text"),
        ({"kind": "merge", "clusters": [0]}, "two clusters"),
        ({"kind": "merge", "clusters": [0, 99]}, "no cluster 99"),
        ({"kind": "move", "segments": [], "cluster": 0}, "choose segments"),
        ({"kind": "move", "segments": [10**6], "cluster": 0}, "numbers from 0"),
        ({"kind": "move", "segments": [-1], "cluster": 0}, "numbers from 0"),
        ({"kind": "split", "cluster": 0, "min_size": 1}, "from 2 on"),
        ({"kind": "split", "cluster": 0, "min_size": 5000}, "does not fall"),
        ({"kind": "paint"}, "no kind of change"),
        ({}, "no kind of change"),
    ],
)
def test_impossible_changes_change_nothing(clusters, found, change, sentence):
    before = clusters.labels.copy()
    with pytest.raises(ConfigError, match=sentence):
        clusters.change(change, "ada")
    np.testing.assert_array_equal(clusters.labels, before)
    assert not (found / "changes.jsonl").exists()


def test_a_separator_of_lines_in_a_name_does_not_end_the_changes(clusters, found):
    clusters.change({"kind": "name", "cluster": 0, "name": "a"}, "Ada\u2028B\x85\ud800")
    clusters.change({"kind": "name", "cluster": 1, "name": "b"}, "ada")
    assert reopened(found).revision == 2
    assert labels(reopened(found)).count("b") == labels(clusters).count("b") > 0


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe",
        b"[1]",
        b"{}",
        b'{"kind": "name"}',
        b'{"kind": "move", "segments": [999999], "cluster": 0}',
        b'{"kind": "recluster", "labels": [1]}',
    ],
)
def test_a_line_that_is_no_change_is_named(clusters, found, line):
    clusters.change({"kind": "name", "cluster": 0, "name": "a"}, "ada")
    path = found / "changes.jsonl"
    content = path.read_bytes() + line + b"\n"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"line 2 of '.*changes\.jsonl' is no change"):
        reopened(found)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("name", "arrays"),
    [
        ("segments.npz", {"other": np.zeros(1)}),
        ("map.npz", {"places": np.zeros(3)}),
        ("features.npz", {"features": np.zeros((2, 3))}),
        ("clusters.npz", {"labels": np.zeros(2), "membership": np.zeros(2)}),
    ],
)
def test_files_that_do_not_belong_together_are_refused(found, name, arrays):
    np.savez(found / name, **arrays)
    with pytest.raises(ConfigError, match="damaged or missing"):
        reopened(found)


@pytest.mark.parametrize(
    "values",
    [
        {"request": None},
        {"request": [1]},
        {"min_size": "x"},
        {"patches": None},
        {"patches": {"a": 1}},
    ],
)
def test_a_description_edited_by_hand_is_refused(found, values):
    path = found / "discovery.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(ConfigError, match="damaged or missing"):
        DiscoveryPage(DiscoveryFolder(found))


def test_patches_that_are_cut_or_gone_are_refused(found):
    (found / "patches.u8").write_bytes(b"1")
    with pytest.raises(ConfigError, match=r"patches\.u8' is damaged or missing"):
        DiscoveryPage(DiscoveryFolder(found))
    (found / "patches.u8").unlink()
    with pytest.raises(ConfigError, match=r"patches\.u8' is damaged or missing"):
        DiscoveryPage(DiscoveryFolder(found))

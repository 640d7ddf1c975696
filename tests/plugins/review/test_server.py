"""The page's routes over HTTP: lists, pictures, sound, changes, and refusals."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
from processes.waiting import PATIENCE_S
from stages.reviews import RATE, collection, session, tones

from neurovocal.engine.support.endpoints import Address
from neurovocal.plugins.review.server import ReviewPage
from neurovocal.plugins.web.access import Access
from neurovocal.plugins.web.server import PageServer

SEGMENTS = [(0.5, 0.7, "a"), (1.0, 1.2, "b"), (2.0, 2.3, "<img src=x onerror=f()>")]


@pytest.fixture
def page(tmp_path: Path) -> ReviewPage:
    path = tones(tmp_path / "song.wav", [each[:2] for each in SEGMENTS], 4.0)
    review = session(tmp_path / "songs.review.sqlite", collection(path, SEGMENTS))
    return ReviewPage(lambda: review, tmp_path / "songs-reviewed", author="Ada")


@pytest.fixture
def client(page: ReviewPage) -> Iterator[httpx.Client]:
    routes = page.routes(at_root=True)
    server = PageServer(Address("127.0.0.1", 0), Access(), routes)
    server.start()
    try:
        with httpx.Client(
            base_url=f"{server.url}review/api/", timeout=PATIENCE_S
        ) as found:
            yield found
    finally:
        server.stop()
        page.close()


def edit(client: httpx.Client, **values: object) -> httpx.Response:
    return client.post("edit", json={"author": "Ada", **values})


def test_the_page_and_its_files_are_served(client):
    root = str(client.base_url).removesuffix("review/api/")
    for name in ("", "review"):
        answer = client.get(root + name)
        assert answer.status_code == 200
        assert 'src="js/review/main.js"' in answer.text
        assert "<script>" not in answer.text
    assert client.get(f"{root}js/review/main.js").status_code == 200
    assert client.get(f"{root}review.css").status_code == 200


def test_state_and_lists(client):
    state = client.get("state").json()
    assert (state["reviewed"], state["total"], state["author"]) == (0, 3, "Ada")
    assert state["recordings"][0]["n_samples"] == 4 * RATE
    assert state["orders"] == {
        "posterior": False,
        "surprise": False,
        "near_miss": False,
    }
    found = client.get("segments", params={"unit": SEGMENTS[2][2]}).json()
    assert [each["onset"] for each in found["segments"]] == [2 * RATE]
    found = client.get("segments", params={"first": 1, "most": 1}).json()
    assert (found["total"], [s["id"] for s in found["segments"]]) == (3, ["s1"])
    part = {"recording": "song.wav", "start": RATE, "stop": 2 * RATE}
    found = client.get("window", params=part).json()
    assert [each["id"] for each in found["segments"]] == ["s1"]


def test_a_change_is_kept_and_told(client):
    answer = edit(client, action="label", segment="s0", unit="c", seen=0).json()
    assert answer["ok"]
    assert answer["segments"][0]["unit"] == "c"
    assert (answer["reviewed"], answer["total"]) == (1, 3)
    found = client.get("events", params={"after": 0}).json()
    assert [event["action"] for event in found["events"]] == ["label"]
    assert found["segments"][0]["author"] == "Ada"
    assert client.get("events", params={"after": 1}).json()["events"] == []
    assert edit(client, action="undo").json()["segments"][0]["unit"] == "a"


def test_the_spectrogram_is_bytes_behind_a_header(client):
    part = {"recording": "song.wav", "start": 0, "stop": RATE, "columns": 100}
    content = client.get("spectrogram", params=part).content
    length = int.from_bytes(content[:4], "little")
    assert length % 4 == 0
    header = json.loads(content[4 : 4 + length])
    n_frames, n_bins = header["shape"]
    assert len(content) == 4 + length + n_frames * n_bins
    assert n_frames * header["column_s"] == pytest.approx(1.0, abs=0.02)


def test_slow_sound_has_a_lower_rate(client):
    part = {"recording": "song.wav", "start": RATE // 2, "stop": RATE, "speed": 0.25}
    answer = client.get("sound", params=part)
    assert answer.headers["content-type"] == "audio/wav"
    samples, rate = soundfile.read(io.BytesIO(answer.content))
    assert (rate, len(samples)) == (RATE // 4, RATE // 2)
    assert np.abs(samples).max() == pytest.approx(0.7, abs=0.01)


def test_export_writes_beside_what_is_reviewed(client, tmp_path):
    refused = client.post("export", json={})
    assert refused.status_code == 409
    assert "no segment is reviewed yet" in refused.json()["error"]
    edit(client, action="confirm", segment="s0")
    first = client.post("export", json={}).json()
    second = client.post("export", json={"format": "raven"}).json()
    assert first["folder"] == str(tmp_path / "songs-reviewed")
    assert second["folder"] == str(tmp_path / "songs-reviewed-2")
    assert (tmp_path / "songs-reviewed" / "annotations.csv").is_file()


@pytest.mark.parametrize(
    ("request_", "status", "sentence"),
    [
        ({"url": "segments", "params": {"order": "fun"}}, 409, "'fun' is no choice"),
        ({"url": "window", "params": {"recording": "x"}}, 409, "not there any more"),
        (
            {"url": "spectrogram", "params": {"recording": "song.wav", "stop": 0}},
            409,
            "no length",
        ),
        (
            {"url": "sound", "params": {"recording": "song.wav", "speed": "x"}},
            409,
            "no",
        ),
    ],
)
def test_faulty_questions_get_a_sentence(client, request_, status, sentence):
    answer = client.get(**request_)
    assert answer.status_code == status
    assert sentence in answer.json()["error"]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"action": "explode", "author": "x"}, "no change"),
        ({"action": "label"}, "no change"),
        ({"action": "label", "author": "x", "segment": "s0", "unit": ""}, "a name"),
        (
            {"action": "label", "author": "x", "segment": "gone", "unit": "a"},
            "not there",
        ),
        ({"action": "label", "author": "x", "segment": "s0", "more": 1}, "no change"),
    ],
)
def test_faulty_changes_change_nothing(client, values, sentence):
    answer = client.post("edit", json=values)
    assert answer.status_code == 409
    assert sentence in answer.json()["error"]
    assert client.get("events").json()["events"] == []


def test_only_json_changes_anything(client):
    body = json.dumps({"action": "delete", "author": "x", "segment": "s0"})
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        answer = client.post("edit", content=body, headers={"content-type": kind})
        assert answer.status_code == 415
    huge = client.post(
        "edit", content=b" " * 70_000, headers={"content-type": "application/json"}
    )
    assert huge.status_code == 413
    other = client.post("edit", json={}, headers={"origin": "http://elsewhere.example"})
    assert other.status_code == 403
    assert client.get("events").json()["events"] == []


def test_audio_that_goes_away_is_told(client, page, tmp_path):
    (tmp_path / "song.wav").unlink()
    part = {"recording": "song.wav", "start": 0, "stop": RATE}
    answer = client.get("sound", params=part)
    assert answer.status_code == 404
    assert "song.wav" in answer.json()["error"]
    assert edit(client, action="label", segment="s0", unit="c").status_code == 200

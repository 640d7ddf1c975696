"""Arrays of npz files: sizes are bounded before anything is allocated."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from neurovocal.engine.contracts.errors import BundleError
from neurovocal.engine.support.process import process_usage
from neurovocal.plugins.storage.npz import read_npz

LIMIT = 256 * 2**20


def header(dtype: str, shape: tuple[int, ...]) -> bytes:
    head = io.BytesIO()
    description = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(head, description)
    return head.getvalue()


def write(
    path: Path, *entries: tuple[str, bytes], how: int = zipfile.ZIP_DEFLATED
) -> Path:
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def refusal(path: Path) -> str:
    before_mb = process_usage().rss_mb
    with pytest.raises(BundleError) as caught:
        read_npz(path, "scaling file", "a")
    assert process_usage().rss_mb - before_mb < 100
    return str(caught.value)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int16])
def test_arrays_of_numbers_are_read_as_float32(tmp_path: Path, dtype: type) -> None:
    values = np.arange(12).reshape(3, 4).astype(dtype)
    one, turned = np.asarray(7, dtype), np.asfortranarray(values)
    np.savez_compressed(tmp_path / "x.npz", a=values, b=turned, c=one)
    read = read_npz(tmp_path / "x.npz", "scaling file", "a", "b")
    for name in "ab":
        assert read[name].dtype == np.float32
        assert read[name].flags.c_contiguous
        assert np.array_equal(read[name], values)
    assert read["c"].shape == ()
    assert read["c"] == 7


@pytest.mark.parametrize(
    ("dtype", "shape", "reason"),
    [
        ("|b1", (8,), "holds bool, not numbers"),
        ("<c8", (8,), "holds complex64, not numbers"),
        ("|O", (8,), "holds object, not numbers"),
        ("<U9", (8,), "not numbers"),
        ("<f4", (2**62,), "67108864 is the most here"),
        ("<f4", (2**31, 2**31, 0), "'a' is longer than its shape"),
        ("<f4", (9,), "'a' ends too early"),
        ("<f4", (-1,), "has the shape (-1,)"),
        ("<f4", (1,) * 9, "has the shape"),
        ("|u1", (LIMIT // 2,), "67108864 is the most here"),
    ],
)
def test_arrays_of_other_sizes_and_kinds_are_refused(
    tmp_path: Path, dtype: str, shape: tuple[int, ...], reason: str
) -> None:
    content = header(dtype, shape) + bytes(32)
    assert reason in refusal(write(tmp_path / "x.npz", ("a.npy", content)))


def test_two_hundred_megabytes_of_bytes_in_a_small_file_are_refused(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.npy", "w") as entry,
    ):
        entry.write(header("|u1", (200 * 2**20,)))
        for _ in range(200):
            entry.write(bytes(2**20))
    assert path.stat().st_size < 2**20
    assert "67108864 is the most here" in refusal(path)


def test_many_arrays_and_arrays_of_one_name_are_refused(tmp_path: Path) -> None:
    one = header("<f4", (1,)) + bytes(4)
    many = write(tmp_path / "x.npz", *((f"{n}.npy", one) for n in range(101)))
    assert "101 arrays: 100 is the most" in refusal(many)
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = write(tmp_path / "y.npz", ("a.npy", one), ("a.npy", one))
    assert "two arrays are named 'a'" in refusal(twice)


def test_other_compressions_are_refused(tmp_path: Path) -> None:
    one = header("<f4", (1,)) + bytes(4)
    path = write(tmp_path / "x.npz", ("a.npy", one), how=zipfile.ZIP_LZMA)
    assert "in another way than deflate" in refusal(path)


@pytest.mark.parametrize("name", ["a.txt", "a"])
def test_entries_that_are_no_arrays_are_refused(tmp_path: Path, name: str) -> None:
    assert "cannot be read" in refusal(write(tmp_path / "x.npz", (name, b"text")))

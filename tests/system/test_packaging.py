"""What is installed: the same files whether linked, built or unpacked."""

import configparser
import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from repository import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WHEEL = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
PACKAGES = WHEEL["only-include"]
JUNK = {"__pycache__", ".mypy_cache", ".ruff_cache", ".hypothesis", ".pytest_cache"}


def source_files(package):
    """Files of a package that belong into the wheel, as git knows them."""
    listed = subprocess.run(
        ["git", "ls-files", "--", package],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return {line for line in listed.stdout.splitlines() if (ROOT / line).exists()}


needs_git = pytest.mark.skipif(
    not (ROOT / ".git").exists(), reason="needs the repository"
)


def test_links_and_mapping_agree():
    links = {path.name: path for path in (ROOT / ".src" / "neurovocal").iterdir()}
    assert sorted(links) == sorted(PACKAGES)
    for name, link in links.items():
        assert link.is_symlink(), f"{name} is a copy"
        assert os.readlink(link) == f"../../{name}", "a link must be relative"
        assert link.resolve() == ROOT / name
    assert WHEEL["sources"] == {name: f"neurovocal/{name}" for name in PACKAGES}
    assert PROJECT["tool"]["hatch"]["build"]["dev-mode-dirs"] == [".src"]
    sdist = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["only-include"]
    assert set(PACKAGES) <= set(sdist), "without these the sdist has no code"


def test_neurovocal_is_a_namespace():
    """No package of its own may stand between it and its four parts."""
    assert not (ROOT / ".src" / "neurovocal" / "__init__.py").exists()
    assert version("neurovocal") == PROJECT["project"]["version"]


def test_every_dependency_is_explained():
    text = (ROOT / "docs/project/dependencies.md").read_text().lower()
    names = list(PROJECT["project"]["dependencies"])
    for extra in PROJECT["project"]["optional-dependencies"].values():
        names += extra
    for requirement in names:
        name = requirement.split(">")[0].split("=")[0].split("[")[0].strip().lower()
        assert name in text, f"dependencies.md does not say what {name} is for"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel as `python -m build --wheel` makes it, by the build backend."""
    folder = tmp_path_factory.mktemp("wheel")
    code = "import sys, hatchling.build as b; print(b.build_wheel(sys.argv[1]))"
    try:
        import hatchling  # noqa: F401

        command = [sys.executable, "-c", code, str(folder)]
    except ImportError:
        # An environment of its own, with the backend from the package index.
        command = [sys.executable, "-m", "build", "--wheel", "-o", str(folder), "."]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


@needs_git
def test_the_wheel_has_every_file_and_no_other(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {n for n in archive.namelist() if ".dist-info/" not in n}
    assert not any(JUNK & set(Path(name).parts) for name in names)
    tops = {Path(name).parts[:2] for name in names}
    assert tops == {("neurovocal", package) for package in PACKAGES}
    for package in PACKAGES:
        missing = {f"neurovocal/{name}" for name in source_files(package)} - names
        assert not missing, f"left out of the wheel: {sorted(missing)[:5]}"
    assert "neurovocal/configs/demo.yaml" in names
    assert "neurovocal/engine/py.typed" in names
    assert any(name.startswith("neurovocal/models/pretrained/") for name in names)


def test_the_wheel_has_its_entry_points_and_licence(wheel):
    with zipfile.ZipFile(wheel) as archive:
        info = next(n.split("/")[0] for n in archive.namelist() if ".dist-info" in n)
        points = configparser.ConfigParser(delimiters=("=",))
        points.optionxform = str
        points.read_string(archive.read(f"{info}/entry_points.txt").decode())
        names = archive.namelist()
    declared = PROJECT["project"]["entry-points"]
    assert dict(points["console_scripts"]) == PROJECT["project"]["scripts"]
    for group, entries in declared.items():
        assert dict(points[group]) == entries
    for licence in PROJECT["project"]["license-files"]:
        assert f"{info}/licenses/{licence}" in names


def test_every_entry_point_leads_to_a_file(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for group in PROJECT["project"]["entry-points"].values():
        for target in group.values():
            module = target.split(":")[0].replace(".", "/")
            assert {f"{module}.py", f"{module}/__init__.py"} & names, target


@pytest.mark.long
def test_the_wheel_alone_runs_the_demo(wheel, tmp_path):
    """In an environment without this folder, and without torch."""
    folder = tmp_path / "env"
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    constraints = ROOT / "constraints.txt"
    limits = ["-c", str(constraints)] if constraints.exists() else []
    subprocess.run([*pip, str(wheel), *limits], check=True, cwd=tmp_path)
    done = subprocess.run(
        [folder / "bin" / "neurovocal", "label", _recording(folder), "--out", "-"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    rows = done.stdout.splitlines()
    assert rows[0] == "file,onset_s,offset_s,label,posterior"
    assert len(rows) > 20
    torch = subprocess.run([python, "-c", "import torch"], capture_output=True)
    assert torch.returncode != 0, "running must not need torch"


def _recording(folder):
    """The recording that the demo plays, from inside the installed package."""
    found = sorted(folder.rglob("neurovocal/configs/**/*.wav"))
    found += sorted(folder.rglob("neurovocal/configs/**/*.flac"))
    assert found, "no recording was installed"
    return str(found[0])


def test_the_lock_agrees_with_the_constraints():
    lock = (ROOT / "requirements.lock").read_text()
    locked = dict(re.findall(r"^([\w.-]+)==(\S+) \\$", lock, re.MULTILINE))
    pinned = dict(
        re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
    )
    plain = {name.lower().replace("_", "-"): v for name, v in pinned.items()}
    assert locked, "nothing is locked"
    for name, release in locked.items():
        assert plain[name] == release, f"{name}: 'make lock'"
    for needed in PROJECT["project"]["dependencies"]:
        assert re.split(r"[<>=!~]", needed)[0] in locked, f"{needed}: 'make lock'"
    blocks = re.split(r"^(?=\S)", lock, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in block for block in blocks)

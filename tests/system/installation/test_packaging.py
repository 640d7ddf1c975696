"""What is installed: the same files whether linked, built or unpacked."""

import configparser
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urljoin
from urllib.request import urlopen

import pytest
from processes.waiting import PATIENCE_S
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


PYTHONS = re.findall(
    r"Python :: (3\.\d+)", "\n".join(PROJECT["project"]["classifiers"])
)


def test_the_classifiers_name_the_oldest_python():
    assert PROJECT["project"]["requires-python"] == f">={PYTHONS[0]}"


def interpreter(release):
    """An interpreter of a release: this one, one on PATH, or one of pyenv's."""
    if sys.version.startswith(f"{release}."):
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    found = sorted(pyenv.glob(f"versions/{release}.*/bin/python"))
    for candidate in (shutil.which(f"python{release}"), *found):
        command = [candidate, "-c", "import ssl, sqlite3, venv"]
        if candidate and not subprocess.run(command, capture_output=True).returncode:
            return str(candidate)
    pytest.skip(f"there is no Python {release} on this machine")


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    """Folder of programs with uv and pipx, in an environment of their own."""
    folder = tmp_path_factory.mktemp("tools")
    venv.create(folder, with_pip=True)
    install = [folder / "bin" / "python", "-m", "pip", "install", "-q", "uv", "pipx"]
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"uv and pipx cannot be had here: {done.stderr[-200:]}")
    return folder / "bin"


def _environment(folder, tools=None):
    """What a new user's shell has: a home and a path, no variable of this project."""
    path = os.environ["PATH"]
    return {
        "PATH": f"{tools}:{path}" if tools else path,
        "HOME": str(folder),
        # Where the machine keeps its packages and certificates.
        **{k: v for k, v in os.environ.items() if k.startswith(("PIP_", "UV_", "SSL"))},
    }


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("installer", ["pip", "uv"])
@pytest.mark.parametrize("release", PYTHONS)
def test_the_wheel_alone_does_what_it_promises(
    wheel, tools, tmp_path, release, installer
):
    """In an environment without this folder, and without torch."""
    folder = tmp_path / "env"
    python = folder / "bin" / "python"
    limits = ["-c", str(ROOT / "constraints.txt")]
    if installer == "pip":
        subprocess.run([interpreter(release), "-m", "venv", folder], check=True)
        pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "-q"]
        subprocess.run([*pip, str(wheel), *limits], check=True, cwd=tmp_path)
    else:
        made = [tools / "uv", "venv", "-q", "--python", interpreter(release), folder]
        subprocess.run(made, check=True)
        pip = [tools / "uv", "pip", "install", "-q", "--python", python]
        subprocess.run([*pip, str(wheel)], check=True, cwd=tmp_path)

    program = folder / "bin" / "neurovocal"

    def neurovocal(*arguments):
        done = subprocess.run(
            [program, *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env=_environment(tmp_path),
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    recording = _recording(folder)
    rows = neurovocal("label", recording, "--out", "-")
    assert rows[0] == "file,onset_s,offset_s,label,posterior"
    assert len(rows) > 20
    rows = neurovocal("detect", recording, "--out", "-")
    assert rows[0] == "file,onset_s,offset_s,score"
    assert len(rows) > 20
    for bundle in ("bengalese-finch", "zebra-finch", "spoken-digits"):
        neurovocal("bundle", "check", bundle)
    assert len(neurovocal("demo", "--json", *FAST)) > 20
    _fetch_the_page(program, tmp_path)
    assert not [p for p in tmp_path.iterdir() if p != folder and p.name[0] != "."]
    torch = subprocess.run([python, "-c", "import torch"], capture_output=True)
    assert torch.returncode != 0, "running must not need torch"


PORTS = (
    *("--set", "sinks.0.options.endpoint=tcp://127.0.0.1:*"),
    *("--set", "sinks.1.options.endpoint=127.0.0.1:0"),
)
FAST = (*PORTS, "--set", "source.options.pace=asap")


def _fetch_the_page(program, folder):
    """Run the demo at its own pace, and fetch its page as a browser would."""
    with subprocess.Popen(
        [program, "demo", *PORTS],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(folder),
    ) as process:
        try:
            line = next(line for line in process.stderr if "page: http" in line)
            address = line.partition("page: ")[2].split()[0]
            page = _get(address)
            assert "<title>" in page
            links = re.findall(r'(?:src|href)="([^"#:]+)"', page)
            assert any(link.endswith(".js") for link in links)
            for link in links:
                assert _get(urljoin(address, link))
        finally:
            process.send_signal(signal.SIGINT)
            process.stderr.read()
    assert process.returncode == 0


def _get(address):
    with urlopen(address, timeout=PATIENCE_S) as answer:
        return answer.read().decode("utf-8", "replace")


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("runner", ["uvx", "pipx"])
def test_the_demo_runs_without_being_installed(wheel, tools, tmp_path, runner):
    of_uvx = [tools / "uvx", "--python", sys.executable, "--from", wheel]
    of_pipx = [tools / "pipx", "run", "--python", sys.executable, "--spec", wheel]
    done = subprocess.run(
        [*(of_uvx if runner == "uvx" else of_pipx), "neurovocal", "demo", *FAST],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=_environment(tmp_path, tools),
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 20


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

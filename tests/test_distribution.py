"""What `pip install` gives: a wheel and a source distribution, installed where nothing of this folder can be seen."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from support.snippets import ROOT

import autotune

pytestmark = pytest.mark.slow

PACKAGE = ROOT / "autotune"
OUTSIDE = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def run(*command: str | Path, folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, env=OUTSIDE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-d", folder, folder=ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts of an environment that has the wheel, and this environment's packages without its autotune."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(folder)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    # A folder that a .pth file names is searched last, and its own .pth files, of an editable install, are not read.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    python = folder / "bin" / "python"
    # With its dependencies: none may be missing where the extras for development are installed.
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-index", wheel, folder=folder)
    return folder / "bin"


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    ours = {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*") if path.is_file()}
    ours = {name for name in ours if "__pycache__" not in name}
    held = contents(wheel)
    assert {"autotune/py.typed", "autotune/report/html/page.css", "autotune/report/html/page.js"} <= ours
    assert {name for name in held if ".dist-info/" not in name} == ours
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in held)


def test_the_source_distribution_builds_the_same_wheel(built: Path, wheel: Path, tmp_path: Path) -> None:
    source = next(built.glob("*.tar.gz"))
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "-w", tmp_path)
    run(sys.executable, "-m", "pip", "wheel", *options, source, folder=tmp_path)
    assert contents(next(tmp_path.glob("*.whl"))) == contents(wheel)


def test_the_version_stands_in_one_place(built: Path) -> None:
    assert {path.name for path in built.glob("autotune*")} == {
        f"autotune_train-{autotune.__version__}{end}" for end in (".tar.gz", "-py3-none-any.whl")
    }


def test_it_runs_where_it_is_installed(clean: Path, tmp_path: Path) -> None:
    """Trials of an installed package are the README's quick start, in `.ci/run`."""
    (where,) = run(clean / "python", "-c", "import autotune; print(autotune.__file__)", folder=tmp_path).split()
    assert Path(where).is_relative_to(clean.parent)
    assert autotune.__version__ in run(clean / "autotune", "--version", folder=tmp_path)
    assert "search" in run(clean / "autotune", "--help", folder=tmp_path)
    assert run(clean / "autotune", "init", folder=tmp_path) == "autotune.yaml\n"
    assert run(clean / "python", "-m", "autotune", "schema", folder=tmp_path).startswith("{")

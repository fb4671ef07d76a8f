"""The wheel, installed with its core dependencies alone in an empty environment elsewhere.

Needs a reachable package index, as setting up the project does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[2]


def call(*command: object, cwd: Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command away from the checkout; fail with its output unless it exits as expected."""
    hidden = ("PYTHONPATH", "VIRTUAL_ENV", "NEUROAV_DATA", "NEUROAV_VECTORS")
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={k: v for k, v in os.environ.items() if k not in hidden},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == expect, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from the checkout."""
    out = tmp_path_factory.mktemp("wheel")
    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", out, ROOT, cwd=out)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def contents(wheel) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The ``bin`` folder of an environment that holds the wheel and what it requires."""
    folder = tmp_path_factory.mktemp("elsewhere")
    environment = folder / "environment"
    call(sys.executable, "-m", "venv", environment, cwd=folder)
    binaries = environment / "bin"
    call(binaries / "python", "-m", "pip", "install", "--quiet", wheel, cwd=folder)
    return binaries


# --- what is inside ----------------------------------------------------------------------------
def test_holds_every_module_and_nothing_beside_the_packages(contents):
    modules = {f"neuroav/{p.relative_to(ROOT / 'neuroav')}" for p in ROOT.glob("neuroav/**/*.py")}
    compiler = ROOT / "export"
    modules |= {str(p.relative_to(compiler)) for p in compiler.glob("neuroav_export/**/*.py")}
    assert modules <= contents
    tops = {PurePosixPath(name).parts[0] for name in contents}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"neuroav", "neuroav_export"}
    assert not {n for n in contents if {"tests", "examples"} & set(PurePosixPath(n).parts)}


def test_holds_profiles_shipped_deployments_types_and_licence(contents):
    profiles = {
        f"neuroav/{p.relative_to(ROOT)}" for p in ROOT.glob("hardware_profiles/**/*") if p.is_file()
    }
    assert profiles >= {
        "neuroav/hardware_profiles/loihi2.toml",
        "neuroav/hardware_profiles/README.md",
        "neuroav/hardware_profiles/tables/coefficients.toml",
    }
    assert profiles | {"neuroav/py.typed", "neuroav/shipped/tiny.nav"} <= contents
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in contents)


def test_states_its_version_and_pythons(wheel):
    from neuroav import __version__

    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    assert f"\nVersion: {__version__}\n" in metadata
    assert "\nRequires-Python: <3.14,>=3.10\n" in metadata


# --- what it does elsewhere --------------------------------------------------------------------
def test_is_imported_from_the_new_environment(installed, tmp_path):
    code = "import neuroav; print(neuroav.__file__)"
    found = call(installed / "python", "-c", code, cwd=tmp_path).stdout.strip()
    assert Path(found).is_relative_to(installed.parent)


def test_commands_run_with_the_core_dependencies_alone(installed, tmp_path):
    assert "loihi2" in call(installed / "neuroav", "profiles", "list", cwd=tmp_path).stdout
    assert "simulate" in call(installed / "neuroav", "--help", cwd=tmp_path).stdout
    assert "simulate" in call(installed / "python", "-m", "neuroav", "-h", cwd=tmp_path).stdout


def test_core_environment_lacks_torch_and_says_so(installed, tmp_path):
    found = json.loads(call(installed / "neuroav", "doctor", "--json", cwd=tmp_path).stdout)
    states = {part["name"]: part["state"] for part in found["parts"]}
    assert states["torch"] == "missing"
    assert found["ok"] is True
    done = call(installed / "neuroav", "train", "--out", "run", cwd=tmp_path, expect=1)
    assert "neuroav: error: this command needs torch; install it with: " in done.stderr
    assert done.stderr.count("\n") == 1


def test_shipped_deployment_runs(installed, tmp_path):
    done = call(
        installed / "neuroav", "simulate", "shipped:tiny.nav", "--backend", "reference", "--json",
        cwd=tmp_path,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["backend"] == "reference"
    assert found["samples"] >= 1
    assert len(found["spike_digest"]) == 64

"""``neuroav doctor``: versions, parts present or missing, and the lines that install them."""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

import pytest

from neuroav import doctor
from neuroav.doctor import PARTS, install_line

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


UNLISTED = ("dev", "frameworks")  # needed by the tests alone


def requirements() -> dict[str, tuple[str, str]]:
    """Return package -> (first extra, version range) of what installing the project asks for."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    found = {}
    for extra, lines in {"": project["dependencies"], **project["optional-dependencies"]}.items():
        for line in lines:
            name, bounds = re.match(r"([\w.-]+)([^;]*)", line).groups()  # type: ignore[union-attr]
            asked = found.setdefault(name, (extra, bounds.strip()))
            assert asked[1] == bounds.strip(), f"{name}: two extras ask for different versions"
    return found


def test_parts_are_what_the_project_depends_on():
    wanted = {n: v for n, v in requirements().items() if v[0] not in UNLISTED and n != "tomli"}
    assert {p.name: (p.extra, p.spec.removeprefix(p.name)) for p in PARTS} == wanted


def test_everything_is_present_here(run):
    done = run("doctor", "--json")
    found = done.json
    assert (done.code, found.get("ok")) == (0, True), found
    assert {p["name"]: p["problem"] for p in found["parts"]} == {p.name: None for p in PARTS}
    assert {p["state"] for p in found["parts"]} == {"present"}
    assert found["cores"] >= 1
    assert found["memory_free_bytes"] > 2**20


def test_shows_every_part_for_people(run):
    done = run("doctor")
    assert done.code == 0
    for part in PARTS:
        assert re.search(rf"^{part.name} +{re.escape(metadata.version(part.name))} ", done.out,
                         flags=re.MULTILINE)  # fmt: skip


def test_folders_are_those_the_command_line_sees(run, tmp_path):
    found = run(
        "doctor", "--json", "--cache-dir", tmp_path / "new" / "cache",
        NEUROAV_DATA=str(tmp_path), NEUROAV_VECTORS=str(tmp_path / "absent"),
    ).json  # fmt: skip
    assert found["data_root"] == {"path": str(tmp_path), "exists": True}
    assert found["vectors"] == {"path": str(tmp_path / "absent"), "exists": False}
    assert found["cache_dir_writable"] is True
    assert run("doctor", "--json").json["data_root"] is None


def test_missing_optional_part_is_no_failure_and_says_what_installs_it(run, monkeypatch):
    hide(monkeypatch, "tonic")
    done = run("doctor")
    assert done.code == 0
    assert f"tonic is missing: {install_line('tonic')}" in done.out


def test_missing_core_part_fails(run, monkeypatch):
    hide(monkeypatch, "h5py")
    done = run("doctor", "--json")
    assert (done.code, done.json["ok"]) == (1, False)


def test_core_part_that_cannot_be_imported_is_broken(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    (part,) = (p for p in run("doctor", "--json").json["parts"] if p["name"] == "jinja2")
    assert part["state"] == "broken"
    assert "jinja2" in part["problem"]


def test_optional_part_without_its_module_is_broken(run, monkeypatch):
    whole = doctor.find_spec
    monkeypatch.setattr(doctor, "find_spec", lambda n: None if n == "onnx" else whole(n))
    done = run("doctor")
    assert done.code == 0
    assert "onnx is broken (installed without module onnx): " in done.out


def test_lava_that_cannot_be_imported_is_broken(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "neuroav.sim.lava.shim", None)
    parts = {p["name"]: p for p in run("doctor", "--json").json["parts"]}
    assert parts["lava-nc"]["state"] == parts["lava-dl"]["state"] == "broken"
    assert "neuroav.sim.lava.shim" in parts["lava-nc"]["problem"]


@pytest.mark.parametrize("module", ["torch", "lava", "espeakng_loader"])
def test_install_line_uses_this_interpreter(module):
    line = install_line(module)
    assert line is not None
    assert line.startswith(sys.executable)


def test_install_line_is_for_our_optional_parts_only():
    assert install_line("pandas") is None
    assert install_line("numpy") is None


def test_lava_is_installed_without_its_own_requirements(monkeypatch):
    monkeypatch.setattr(doctor, "find_spec", lambda name: name)
    first, second = str(install_line("lava")).split(" && ")
    assert "asteval" in first
    assert second.endswith("-m pip install --no-deps --ignore-requires-python lava-nc==0.10.0")


def test_environment_without_pip_gets_it_first(monkeypatch):
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    assert f"{sys.executable} -m ensurepip && " in str(install_line("tonic"))


def test_memory_is_unknown_where_the_system_does_not_tell(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "_MEMINFO", tmp_path / "absent")
    assert doctor._free_memory() is None
    (tmp_path / "empty").write_text("MemTotal: 3 kB\n")
    monkeypatch.setattr(doctor, "_MEMINFO", tmp_path / "empty")
    assert doctor._free_memory() is None


def hide(monkeypatch, name: str) -> None:
    """Make one package look as if it were not installed."""

    def version(asked: str) -> str:
        if asked == name:
            raise metadata.PackageNotFoundError(asked)
        return metadata.version(asked)

    monkeypatch.setattr(doctor, "version", version)

"""What ``pyproject.toml`` asks for is explained: each dependency, extra and resolver line."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = CONFIG["project"]["optional-dependencies"]
UV = CONFIG["tool"]["uv"]
INSTALLATION = (ROOT / "docs" / "installation.md").read_text(encoding="utf-8")
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def name(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0]  # type: ignore[index]


def test_changelog_gives_a_reason_for_every_dependency_and_no_other():
    section = CHANGELOG.partition("### Dependencies")[2].partition("\n## ")[0]
    reasons = re.findall(r"^- ([\w.-]+): \S", section, flags=re.MULTILINE)
    lines = [*CONFIG["project"]["dependencies"], *(r for rs in EXTRAS.values() for r in rs)]
    assert sorted(reasons) == sorted(set(map(name, lines)))


@pytest.mark.parametrize("extra", EXTRAS)
def test_installation_explains_every_extra(extra):
    assert f"| `{extra}` |" in INSTALLATION


@pytest.mark.parametrize(
    "line",
    [f"`{kind}-dependencies`: `{r}`" for kind in ("override", "constraint")
     for r in UV[f"{kind}-dependencies"]]
    + [f"`dependency-metadata`: `{m['name']}` {m['version']}" for m in UV["dependency-metadata"]],
)  # fmt: skip
def test_installation_explains_every_resolver_line(line):
    assert f"| {line} |" in INSTALLATION


def test_pythons_agree():
    project = CONFIG["project"]
    assert project["requires-python"] == ">=3.10,<3.14"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "(3, 10) <= sys.version_info[:2] < (3, 14)" in makefile
    assert "CPython from 3.10 to 3.13" in INSTALLATION


def test_licence_is_the_whole_apache_2_text():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert len(text.splitlines()) == 202

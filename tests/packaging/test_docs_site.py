"""The documentation: its code runs, its commands exist, everything has its heading, it builds."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import click
import pytest

from neuroav import integer, nodes
from neuroav.cli.group import cli
from neuroav.hardware import Profile

ROOT = Path(__file__).resolve().parents[2]
TAUGHT = [ROOT / "README.md", *sorted((ROOT / "docs").glob("tutorial*.md")),
          *sorted((ROOT / "docs" / "how-to").glob("*.md")), ROOT / "docs" / "index.md"]  # fmt: skip


def load(path: Path):
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None
    module = module_from_spec(spec)
    assert spec.loader is not None
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reference():
    return load(ROOT / "docs" / "make_reference.py")


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.M | re.S)


# --- what pages show is so ------------------------------------------------------------------------
WITH_CODE = [page for page in TAUGHT if blocks(page, "python")]


def test_pages_with_code_are_found():
    assert len(WITH_CODE) >= 8


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda p: p.stem)
def test_code_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {"__name__": "page"}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), space)


def shown_commands():
    """Yield (page, line) of every ``neuroav`` command in a block of a page."""
    for page in TAUGHT:
        for block in blocks(page, ""):
            for line in block.splitlines():
                if line.startswith("neuroav "):
                    yield page.stem, re.split(r"\s{2,}|\s#", line)[0]


@pytest.mark.parametrize(("page", "line"), shown_commands())
def test_a_command_of_a_page_exists_with_its_options(page, line):
    command, words = cli, shlex.split(line.rstrip("\\"))[1:]
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, line
        command, words = found, words[1:]
    known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
    assert {w.partition("=")[0] for w in words if w.startswith("--")} <= known, line


# --- everything has its heading -------------------------------------------------------------------
def headings(text: str) -> set[str]:
    return set(re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.S), flags=re.M))


def every_command(command, name, context=None):
    yield name
    if isinstance(command, click.Group):
        for child in command.list_commands(click.Context(command)):
            yield from every_command(
                command.get_command(click.Context(command), child), f"{name} {child}"
            )


def test_every_command_and_option_is_in_the_reference(reference):
    page = reference.commands()
    assert set(list(every_command(cli, "neuroav"))[1:]) <= headings(page)
    for name in ("export", "simulate", "verify", "report"):
        section = page.partition(f"\n## neuroav {name}\n")[2].partition("\n## ")[0]
        command = cli.get_command(click.Context(cli), name)
        for option in (p for p in command.params if isinstance(p, click.Option)):
            assert f"`{option.opts[0]}" in section, (name, option.opts)
        assert command.example in section


def test_every_node_type_is_in_the_reference(reference):
    classes = (*nodes.NODE_CLASSES, *integer.POPULATION_CLASSES, *integer.PROJECTION_CLASSES)
    assert {c.__name__ for c in classes} <= headings(reference.nodes())


def test_every_pass_is_in_the_reference_with_what_it_guarantees(reference):
    page = reference.passes()
    folder = ROOT / "export" / "neuroav_export" / "passes"
    modules = {p.stem for p in folder.glob("*.py")} - {"__init__"}
    assert modules <= headings(page)
    for name in reference.ORDER:
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert {"**What:**", "**Assumes:**", "**Guarantees:**"} <= set(section.split())


def test_every_profile_key_is_in_the_reference(reference):
    found = headings(reference.profile_keys())
    for section, keys in reference.profile_sections(Profile).items():
        whole = {key if section == reference.TOP else f"{section}.{key}" for key in keys}
        assert whole <= found, section
    assert "energy.synop_conv" in found


def test_every_public_name_is_in_the_reference(reference):
    import neuroav

    page = reference.python_api()
    public = {f"neuroav.{n}" for n in neuroav.__all__ if not n.startswith("__")}
    assert public | {"Network.simulate", "Network.report"} <= headings(page)
    assert "**labels**: its class numbers" in page


# --- the site -------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if find_spec("mkdocs") is None or find_spec("material") is None:
        pytest.skip("the extra docs is not installed")
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(out)],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={"PATH": "", "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT / "export")},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_every_page_is_built_and_asks_for_nothing_elsewhere(site, reference):
    pages = {p.relative_to(site).with_suffix(".md").as_posix() for p in site.rglob("*.html")}
    written = {p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md")}
    assert written | set(reference.PAGES) <= pages
    link = re.compile(r"<(?:script|img|link|iframe|source)\b[^>]*?(?:src|href)=\"?([^\s\">]+)")
    for page in site.rglob("*.html"):
        loads = link.findall(page.read_text(encoding="utf-8"))
        assert loads
        assert not [url for url in loads if "//" in url.partition("?")[0]], page
    outside = re.compile(r"url\(['\"]?https?:|@import")
    for sheet in site.rglob("*.css"):
        assert not outside.search(sheet.read_text(encoding="utf-8")), sheet


def test_search_works_in_a_page_that_is_opened_as_a_file(site):
    screenshots = load(ROOT / "docs" / "screenshots.py")
    browser_file = screenshots.browser_path()
    if browser_file is None:
        pytest.skip(screenshots.MISSING)
    asked: list[str] = []
    with screenshots.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=browser_file, args=screenshots.QUIET)
        page = browser.new_context(offline=True).new_page()
        page.on("request", lambda r: asked.append(r.url))
        page.on("pageerror", lambda error: asked.append(str(error)))
        page.goto((site / "index.html").as_uri())
        page.click("input.md-search__input")
        page.keyboard.type("saturations")
        page.wait_for_selector(".md-search-result__item")
        browser.close()
    assert asked
    assert not [url for url in asked if not url.startswith(("file:", "data:", "about:"))]

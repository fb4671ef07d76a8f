"""The commands that recipes name in their first lines can be given as they stand."""

from __future__ import annotations

import re
import shlex

import click
import pytest
import samples

from neuroav.cli.group import cli

RECIPES = sorted((samples.ROOT / "examples" / "recipes").glob("*.toml"))


def commands(text: str) -> list[list[str]]:
    """Commands with the lines that go on after a backslash, or begin with an option."""
    lines = [line.lstrip("# ").rstrip() for line in text.splitlines() if line.startswith("#")]
    joined = re.sub(r"( \\)?\n(?=--)", " ", "\n".join(lines)).splitlines()
    found = [
        line[line.index("neuroav ") :] for line in joined if re.search(r"(^|: +)neuroav ", line)
    ]
    return [shlex.split(line) for line in found]


def parsed(words: list[str]) -> None:
    """Parse a command line without carrying it out; raises what the command line would."""
    context, command = click.Context(cli), cli
    while isinstance(command, click.Group):
        name, command, words = command.resolve_command(context, words)
        context = click.Context(command, info_name=name, parent=context)
    command.make_context(context.info_name, words)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_commands_of_a_recipe(recipe, monkeypatch):
    monkeypatch.chdir(samples.ROOT)
    monkeypatch.delenv("NEUROAV_DATA", raising=False)
    found = commands(recipe.read_text(encoding="utf-8"))
    whole = [words for words in found if "..." not in words]
    assert {words[1] for words in whole} >= {"train", "evaluate"}
    assert len(found) - len(whole) <= 1  # "with these options as well"
    for words in whole:
        parsed(words[1:])
        assert "--config" not in words or words[words.index("--config") + 1].endswith(recipe.name)


@pytest.mark.parametrize("line", ["export runs/x --data-root D", "simulate", "train --configs x"])
def test_what_is_not_whole_is_found(line):
    with pytest.raises(click.UsageError):
        parsed(shlex.split(line))

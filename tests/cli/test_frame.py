"""The frame of every command: help, near matches, exit codes, ``--json``, interrupts."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import click
import numpy as np
import pytest

from neuroav.cli.common import Command, Failure, plain, show
from neuroav.cli.group import COMMANDS, cli
from neuroav.errors import ConfigError

SIMULATE = "neuroav.simulate:simulate"


def walk(
    group: click.Group, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield (words, command) of the group and everything in it."""
    yield path, group
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from walk(command, (*path, name))
        else:
            yield (*path, name), command


ALL = dict(walk(cli))
LEAVES = {path: command for path, command in ALL.items() if isinstance(command, Command)}


# --- help --------------------------------------------------------------------------------------
def test_walk_finds_every_command():
    assert {path[0] for path in ALL if path} == set(COMMANDS)
    assert ("profiles", "check") in LEAVES
    assert len(LEAVES) >= 14


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_explains_and_ends_with_an_example(run, path):
    done = run(*path, "--help")
    assert (done.code, done.err) == (0, "")
    text, _, example = done.out.partition("\nExample:\n")
    assert example.strip() == ALL[path].example
    assert "Usage: neuroav" in text
    assert run(*path, "-h").out == done.out


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_example_is_a_command_line_that_parses(path):
    words = shlex.split(LEAVES[path].example)
    assert tuple(words[: len(path) + 1]) == ("neuroav", *path)
    with LEAVES[path].make_context("test", words[len(path) + 1 :]):
        pass


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_option_has_its_help_and_every_command_json(path):
    options = [p for p in LEAVES[path].params if isinstance(p, click.Option)]
    assert all(option.help for option in options)
    assert "json" in {option.name for option in options}


def test_short_help_of_every_command_is_a_whole_sentence(run):
    listed = run("--help", COLUMNS="80").out.partition("Commands:\n")[2].partition("\n\n")[0]
    assert len(listed.splitlines()) == len(COMMANDS)
    assert all(line.endswith(".") and not line.endswith("..") for line in listed.splitlines())


def test_version(run):
    import neuroav

    assert run("--version").out == f"neuroav {neuroav.__version__}\n"


def test_no_arguments_show_the_help(run):
    done = run()
    assert done.code == 2
    assert "Commands:" in done.out + done.err


# --- usage errors ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["simulat"], "unknown command 'simulat': allowed are .*; did you mean 'simulate'?"),
        (["zzz"], "unknown command 'zzz': allowed are ablate, calibrate, convert, data"),
        (["profiles", "lst"], "unknown command 'lst': allowed are check, list, show; did you"),
        (["data", "shwo"], "did you mean 'show'?"),
        (["simulate", "x", "--bakend", "fast"], "--bakend.*--backend"),
        (["evaluate", "x", "--smaples", "3"], "--smaples.*--samples"),
        (["simulate", "x", "--backend", "fats"], "'--backend': unknown backend 'fats'.*'fast'?"),
        (["simulate", "x", "--split", "tset"], "unknown split 'tset'.*did you mean 'test'"),
        (["evaluate", "x", "--split", "probe"], "unknown split 'probe': allowed are test, train"),
        (["verify", "x", "--backends", "fast,lav"], "unknown backend 'lav'.*did you mean 'lava'"),
        (["verify", "x", "--backends", "fast"], "found 'fast', needs at least 2 different names"),
        (["verify", "x", "--backends", "fast,fast"], "needs at least 1 different names"),
        (["verify", "x", "--digests", "chek"], "unknown task 'chek': .*did you mean 'check'"),
        (
            ["verify", "x", "--digests", "check", "--samples", "3"],
            "leave --samples and --split out",
        ),
        (["verify", "shipped:tiny.nav", "--digests", "store"], "belongs to the package: copy it"),
        (["verify", "x", "--run", "y"], "--run is for --explain"),
        (["simulate", "x", "--samples", "0"], "--samples"),
        (["export", "x", "--out", "y.nav", "--bits", "0"], "--bits"),
        (["export", "x"], "--out"),
        (["train", "--model", "add"], "--out"),
        (["report", "--out", "x"], "FILE.nav"),
        (["train", "--out", "x", "--set", "epochs"], "found 'epochs', needs KEY=VALUE"),
        (["train", "--out", "x", "--set", "=3"], "found '=3', needs KEY=VALUE"),
        (["train", "--out", "x", "--resume", "--init-from", "y"], "exclude each other"),
    ],
)
def test_usage_error_exits_2_with_near_matches(run, args, message):
    done = run(*args)
    assert (done.code, done.out) == (2, "")
    text = " ".join(done.err.split())
    assert text.startswith("Usage: neuroav")
    assert "--help' for help." in text
    assert re.search(message.replace("?", r"\?"), text), text


# --- expected failures -------------------------------------------------------------------------
def test_expected_failure_is_one_line_on_stderr(run, stand_in):
    stand_in(SIMULATE, side_effect=ConfigError("a.nav: first\n  second line"))
    done = run("simulate", "a.nav")
    assert (done.code, done.out) == (1, "")
    assert done.err == "neuroav: error: a.nav: first second line\n"


def test_expected_failure_with_json_is_one_object_on_stdout(run, stand_in):
    stand_in(SIMULATE, side_effect=ConfigError("a.nav: wrong"))
    done = run("simulate", "a.nav", "--json")
    assert done.code == 1
    assert done.json == {"error": {"type": "ConfigError", "message": "a.nav: wrong"}}
    assert done.err == "neuroav: error: a.nav: wrong\n"


def test_missing_optional_package_says_what_installs_it(run, stand_in):
    stand_in(SIMULATE, side_effect=ModuleNotFoundError("no torch", name="torch.nn"))
    done = run("simulate", "a.nav", "--json")
    assert done.code == 1
    assert done.json["error"]["type"] == "MissingDependency"
    assert "needs torch; install it with: " in done.err
    assert "pip install 'torch>=" in done.err


@pytest.mark.parametrize("kind", [PermissionError, NotADirectoryError, FileNotFoundError])
def test_files_that_cannot_be_used_are_an_expected_failure(run, stand_in, kind):
    code = {PermissionError: 13, NotADirectoryError: 20, FileNotFoundError: 2}[kind]
    stand_in(SIMULATE, side_effect=kind(code, "not possible", "/some/file"))
    done = run("simulate", "a.nav")
    assert done.code == 1
    assert done.err == f"neuroav: error: [Errno {code}] not possible: '/some/file'\n"


@pytest.mark.parametrize(
    "error",
    [KeyError("x"), ModuleNotFoundError("no pandas", name="pandas"), OSError(5, "input/output")],
)
def test_a_defect_shows_its_traceback(run, stand_in, error):
    stand_in(SIMULATE, side_effect=error)
    done = run("simulate", "a.nav")
    assert done.code == 1
    assert done.exception is error
    done = run("simulate", "a.nav", "--json")
    assert done.exception is error
    assert done.json["error"]["type"] == type(error).__name__


def test_failure_message_is_shown_as_one_line(capsys):
    Failure("a\nb").show()
    assert capsys.readouterr().err == "neuroav: error: a b\n"


# --- the process -------------------------------------------------------------------------------
def process(code: str, *args: str, **options) -> subprocess.CompletedProcess:
    """Run ``code`` and then the command line with ``args`` in a fresh interpreter."""
    start = "import sys; from neuroav.__main__ import main; "
    script = f"{start}sys.argv[1:] = {list(args)!r}\n{code}\nmain()"
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, **options
    )


REPLACE = """
import os, neuroav.simulate
def fake(path, **options):
    {body}
neuroav.simulate.simulate = fake
"""


def test_whatever_libraries_print_stays_off_stdout():
    body = "print('from Python'); os.write(1, b'from C'); return {'samples': 3}"
    done = process(REPLACE.format(body=body), "simulate", "x.nav", "--json")
    assert json.loads(done.stdout) == {"samples": 3}
    assert "from Python" in done.stderr
    assert "from C" in done.stderr
    assert done.returncode == 0


def test_interrupt_exits_130_without_a_traceback():
    done = process(REPLACE.format(body="raise KeyboardInterrupt"), "simulate", "x.nav")
    assert done.returncode == 130
    assert done.stderr.strip() == "neuroav: interrupted"


def test_reader_that_leaves_early_causes_no_traceback():
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "neuroav", "profiles", "list"]
    try:
        done = subprocess.run(
            command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_defect_in_a_process_prints_its_traceback():
    done = process(REPLACE.format(body="raise KeyError('x')"), "simulate", "x.nav")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "KeyError: 'x'" in done.stderr


# --- results -----------------------------------------------------------------------------------
def test_results_become_plain_json():
    value = {"a": np.float32(0.5), 1: np.arange(2), "b": float("nan"), "c": (True, None, {2})}
    assert plain(value) == {"a": 0.5, "1": [0, 1], "b": None, "c": [True, None, [2]]}
    json.dumps(plain(value), allow_nan=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"), (True, "yes"), (0.98765, "0.9877"), (196608.0, "196608"), (1e-9, "1e-09"),
        (73342.6, "73343"), ({}, "none"), ([], "none"),
        ([1, None], "1, -"), ({"a": 0.5}, "a 0.5"), ("[bold]", "[bold]"), (np.int64(3), "3"),
    ],
)  # fmt: skip
def test_values_as_people_read_them(value, text):
    assert show(value) == text

"""The reference pages, made from the code: commands, Python API, profile keys, nodes, passes.

    python docs/make_reference.py build/reference    writes them as Markdown

MkDocs calls ``on_files`` and ``on_page_markdown`` while it builds the site (mkdocs.yml).
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

ROOT = Path(__file__).resolve().parents[1]
PAGE = re.compile(r"`+docs/([\w/-]+)\.md`+")
PROFILES = re.compile(r"`+hardware_profiles/README\.md`+")


# --- text --------------------------------------------------------------------------------------
def linked(text: str, prefix: str = "") -> str:
    """Return Markdown whose ``docs/NAME.md`` are links; prefix: the way to the folder of pages."""

    def link(match: re.Match[str]) -> str:
        name = match[1]
        known = (ROOT / "docs" / f"{name}.md").is_file()
        return f"[{name.replace('-', ' ')}]({prefix}{name}.md)" if known else match[0]

    text = PROFILES.sub(f"[hardware profiles]({prefix}reference/profiles.md)", text)
    return PAGE.sub(link, text)


def markdown(doc: str | None, names: Iterable[str] = ()) -> str:
    """Return a docstring as Markdown: its code, its equations and its examples set as such.

    names: arguments or fields; where the text explains one (``NAME: ...``) it is made to stand out.
    """
    parts = re.split(r"\n\s*\n", inspect.cleandoc(doc or ""))
    words = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    listed = re.compile(rf"(?:(?<=[.;)] )|(?<=\n)|^)((?:{words})(?:,\s(?:{words}))*):(?=\s)")
    return "\n\n".join(
        text if text.startswith("```") or not words else listed.sub(r"**\1**:", text)
        for text in map(_paragraph, parts)
    )


def _paragraph(text: str) -> str:
    if text.startswith(">>>"):
        return f"```pycon\n{text}\n```"
    if re.match(r"(    )|([a-z]\w*'?(\[[^\]]*\])*\s+= )", text):
        plain = re.sub(r"``(.+?)``", r"\1", textwrap.dedent(text))
        return f"```text\n{plain}\n```"
    text = re.sub(r"^(?![-\s])(.+)\n(?=- )", r"\1\n\n", text, flags=re.M)  # a list starts anew
    text = re.sub(r"([(,] ?)\*(?=\w+[^\w*])", r"\1\\*", re.sub(r"<(?=\w)", "&lt;", text))
    return linked(text, "../").replace("``", "`")


def table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table; bars and line ends in cells are made harmless."""
    cells = [[" ".join(c.split()).replace("|", "\\|") for c in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *cells))


def code(text: str) -> str:
    """Return text as inline code, nothing for nothing."""
    return f"`{text}`" if text else ""


# --- commands ----------------------------------------------------------------------------------
def commands() -> str:
    """Return the page of the command line: every command with its options and an example."""
    from neuroav.cli.group import cli

    lead = (
        "# Commands\n\nEvery command takes `--help`. With `--json` it prints one JSON object on "
        "standard output, also when it fails ([keys](../file-format.md)). Exit codes: 0 done, 1 "
        "expected failure (one line says what to try), 2 wrong usage."
    )
    return "\n\n".join([lead, *_commands(cli, "neuroav", None)]) + "\n"


def _commands(command: Any, name: str, parent: Any) -> Iterator[str]:
    import click

    # with the program's settings: click keeps the help option that it makes here
    settings = command.context_settings
    context = click.Context(command, parent, info_name=name.rpartition(" ")[2], **settings)
    if parent is not None:
        yield _command(command, name, context)
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            yield from _commands(found, f"{name} {child}", context)


def _command(command: Any, name: str, context: Any) -> str:
    import click

    usage = " ".join([name, *command.collect_usage_pieces(context)])
    parts = [f"## {name}", markdown(command.help), f"```\n{usage}\n```"]
    options = [p for p in command.params if isinstance(p, click.Option)]
    found = [p.get_help_record(context) for p in options if "--help" not in p.opts]
    rows = [record for record in found if record]
    if rows:
        cells = [(code(o), linked(_plain(h), "../")) for o, h in rows]
        parts += [table(("option", "meaning"), cells)]
    if isinstance(command, click.Group):
        names = ", ".join(code(f"{name} {c}") for c in command.list_commands(context))
        parts += [f"Commands: {names}."]
    return "\n\n".join([*parts, f"Example:\n\n```\n{command.example}\n```"])


def _plain(text: str) -> str:
    return text.replace("<", "&lt;").replace("  [", " [")


# --- Python API --------------------------------------------------------------------------------
def python_api() -> str:
    """Return the page of what ``import neuroav`` offers."""
    import neuroav

    order = ("export", "load", "Network")
    names = [n for n in neuroav.__all__ if not n.startswith("__")]
    names.sort(key=lambda n: (order.index(n) if n in order else len(order), n[0].isupper(), n))
    lead = (
        "# Python API\n\n`import neuroav` loads nothing heavy: what is named here is loaded when "
        "it is first used. Everything is typed, and every example below is run by a test. All "
        "errors that a user can mend are a `NeuroavError` and say where, what was found, what is "
        "allowed and what to try.\n\n`Array` is a numpy array or a torch tensor; `Inputs` is one "
        "`Array`, or a dict with one by input name."
    )
    return (
        "\n\n".join([lead, *(_public(f"neuroav.{n}", getattr(neuroav, n)) for n in names)]) + "\n"
    )


def _public(name: str, thing: Any) -> str:
    if not inspect.isclass(thing):
        arguments = inspect.signature(thing).parameters
        return f"## {name}\n\n{signature(name, thing)}\n\n{markdown(thing.__doc__, arguments)}"
    held = [f.name for f in fields(thing)] if is_dataclass(thing) else ()
    parts = [f"## {name}", markdown(thing.__doc__, held)]
    if issubclass(thing, Exception):
        return "\n\n".join(parts)
    short = name.rpartition(".")[2]
    properties = [
        (code(n), markdown(v.__doc__)) for n, v in vars(thing).items() if isinstance(v, property)
    ]
    if properties:
        parts.append(table(("property", "what it is"), properties))
    for method, value in vars(thing).items():
        if inspect.isfunction(value) and not method.startswith("_"):
            words = markdown(value.__doc__, inspect.signature(value).parameters)
            parts += [f"### {short}.{method}", signature(method, value), words]
    return "\n\n".join(parts)


def signature(name: str, function: Callable[..., Any]) -> str:
    """Return a function's signature as a block of code, one argument a line where it is long."""
    found = inspect.signature(function)
    parts, starred = [], False
    for p in found.parameters.values():
        if p.kind is p.KEYWORD_ONLY and not starred:
            parts, starred = [*parts, "*"], True
        starred = starred or p.kind is p.VAR_POSITIONAL
        if p.name != "self":
            parts.append(str(p).replace("'", "") if p.default is p.empty else _defaulted(p))
    arrow = f" -> {str(found.return_annotation).strip(chr(39))}"
    line = f"{name}({', '.join(parts)}){arrow}"
    if len(line) > 88:
        line = f"{name}(\n    " + ",\n    ".join(parts) + f",\n){arrow}"
    return f"```python\n{line}\n```"


def _defaulted(p: inspect.Parameter) -> str:
    return f"{p.name}: {p.annotation} = {p.default!r}"


# --- nodes -------------------------------------------------------------------------------------
def nodes() -> str:
    """Return the page of node types: real-valued nodes, populations and projections."""
    from neuroav import fixed
    from neuroav import integer as ig
    from neuroav import nodes as rn

    parts = [
        "# Node types",
        "A traced and lowered network is made of real-valued nodes; the compiled one of "
        "populations of neurons and the projections, bundles of synapses, between them. "
        "[Other formats](../formats.md) says which of them each file format carries.",
        "## Real-valued nodes",
        markdown(rn.__doc__),
        *(_node(c) for c in rn.NODE_CLASSES),
        "## Populations",
        markdown(ig.__doc__),
        *(_node(c) for c in ig.POPULATION_CLASSES),
        "The step of `IntLif`, all integers (`neuroav.fixed.lif_step`):",
        markdown(fixed.lif_step.__doc__),
        "## Projections",
        markdown(ig.Projection.__doc__),
        *(_node(c) for c in ig.PROJECTION_CLASSES),
    ]
    return "\n\n".join(parts) + "\n"


def _default(value: object) -> str:
    return "" if value is MISSING else repr(value)


def _node(cls: Any) -> str:
    docs = [cls.__doc__, *(b.__doc__ for b in cls.__mro__[1:] if b.__name__.startswith("_"))]
    rows = [
        (code(f.name), code(str(f.type).replace(" | ", " or ")), code(_default(f.default)))
        for f in fields(cls)
    ]
    names = [f.name for f in fields(cls)]
    parts = [f"### {cls.__name__}", *(markdown(doc, names) for doc in docs)]
    return "\n\n".join([*parts, table(("field", "type", "default"), rows)] if rows else parts)


# --- passes ------------------------------------------------------------------------------------
ORDER = ("fold_norm", "lower", "limit_range", "quantize", "prove_range")
PARTS = ("What", "Why", "Assumes", "Guarantees", "Source")


def pass_modules() -> list[str]:
    """Return the names of the compiler's passes and their helpers, those of ``ORDER`` first."""
    package = import_module("neuroav_export.passes")
    folder = Path(str(package.__file__)).parent
    names = sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith("_"))
    return [*(n for n in ORDER if n in names), *(n for n in names if n not in ORDER)]


def passes() -> str:
    """Return the page of compiler passes, in the order they run; helpers after them."""
    lead = (
        "# Compiler passes\n\nThe compiler runs "
        + ", ".join(code(n) for n in ORDER)
        + " in this order, and checks every real-valued one by running the network before and "
        "after it. The other modules hold parts of these, by the kind of node."
    )
    parts = [lead]
    for name in pass_modules():
        doc = inspect.cleandoc(import_module(f"neuroav_export.passes.{name}").__doc__ or "")
        for part in PARTS:  # each on its own
            doc = re.sub(rf"(^|(?<=[.;)\s]))\s*\b{part}: ", f"\n\n**{part}:** ", doc)
        parts.append(f"## {name}\n\n{markdown(doc)}")
    return "\n\n".join(parts) + "\n"


# --- profiles ----------------------------------------------------------------------------------
TOP = "top level"


def profile_keys() -> str:
    """Return the page of profile keys: meaning, and the value in every shipped profile."""
    from neuroav.hardware import Profile, list_profiles, load_profile

    readme = (ROOT / "hardware_profiles" / "README.md").read_text(encoding="utf-8")
    meaning = {
        m[1]: (m[2], m[3])
        for m in re.finditer(r"^\| `([\w.]+)` \| (.*?) \| (.*) \|$", readme, re.M)
    }
    shipped = {name: load_profile(name) for name in list_profiles()}
    parts = [
        "# Profile keys",
        "A [hardware profile](profiles.md) gives every key below. Numbers that came from outside "
        "have a range, a grade and a source: `neuroav profiles show ID` prints them all. A dash is "
        "an unknown number.",
    ]
    for section, keys in profile_sections(Profile).items():
        parts += [f"## {section.capitalize() if section == TOP else section}"]
        for key in keys:
            name = key if section == TOP else f"{section}.{key}"
            unit, words = meaning[name]
            rows = _by_profile({p: _value(x, section, key) for p, x in shipped.items()})
            parts += [f"### {name}", f"{words[0].upper()}{words[1:]}. *{unit}*"]
            if rows:
                parts += [table(("profile", "value", "range", "grade"), rows)]
    return "\n\n".join(parts) + "\n"


def _by_profile(values: dict[str, tuple[str, str, str]]) -> list[tuple[str, ...]]:
    """Return rows of a table: profiles with the same value share one."""
    alike: dict[tuple[str, str, str], list[str]] = {}
    for name, value in values.items():
        if value[0]:
            alike.setdefault(value, []).append(code(name))
    return [(", ".join(names), *value) for value, names in alike.items()]


def profile_sections(model: Any) -> dict[str, list[str]]:
    """Return the keys of a profile by table, ``TOP`` for those in none."""
    found: dict[str, list[str]] = {TOP: ["extends"]}  # of the file, not of what it becomes
    for name, field in model.model_fields.items():
        kinds = [field.annotation, *get_args(field.annotation)]
        kinds += [inner for kind in kinds for inner in get_args(kind)]
        tables = [kind for kind in kinds if hasattr(kind, "model_fields")]
        if tables:
            found[name] = list(tables[0].model_fields)
        elif name != "text":  # the file itself
            found[TOP].append(field.alias or name)
    return found


def _value(profile: Any, section: str, key: str) -> tuple[str, str, str]:
    """Return value with unit, range and grade of a key; nothing where the profile lacks it."""
    value = getattr(getattr(profile, section, None), key, None)
    if value is None:
        return "", "", ""
    if not hasattr(value, "grade"):
        return code(str(value).lower() if isinstance(value, bool) else str(value)), "", ""
    if value.value is None:
        return "–", "", value.grade
    low, middle, high = (f"{x:,g}" for x in value.band)
    unit = "" if value.unit == "count" else f" {value.unit}"
    return f"{middle}{unit}", "" if low == high else f"{low} to {high}", value.grade


def profiles() -> str:
    """Return the page of the shipped profiles."""
    return (ROOT / "hardware_profiles" / "README.md").read_text(encoding="utf-8")


PAGES: dict[str, Callable[[], str]] = {
    "reference/commands.md": commands,
    "reference/python-api.md": python_api,
    "reference/nodes.md": nodes,
    "reference/passes.md": passes,
    "reference/profile-keys.md": profile_keys,
    "reference/profiles.md": profiles,
}


# --- MkDocs ------------------------------------------------------------------------------------
def on_files(files: Any, config: Any) -> Any:
    """Add the reference pages to the site."""
    from mkdocs.structure.files import File

    for path, page in PAGES.items():
        files.append(File.generated(config, path, content=page()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Make links of the names of other pages."""
    return linked(markdown, "../" * page.file.src_uri.count("/"))


def main() -> None:
    """Write the pages under the folder that the command line names."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for path, page in PAGES.items():
        target = Path(sys.argv[1]) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()

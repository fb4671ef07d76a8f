"""Documents of hardware profiles before they are checked: where they lie, extends, schema 1.

Everything here works on parsed TOML, plain dicts; ``neuroav.hardware`` makes a Profile of them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from neuroav.errors import ProfileError, unknown_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ALIASES = {"loihi1": "loihi1-nahuku-fit"}
Document = dict[str, Any]

# A document gives these itself. A measured point holds for the coefficients it was predicted with.
_OWN = ("schema", "id", "title", "validation")


# --- where they lie ----------------------------------------------------------------------------
def _folder():
    """Return where the shipped profiles lie: inside the package, or beside it in a checkout."""
    inside = resources.files("neuroav") / "hardware_profiles"
    if inside.is_dir():
        return inside
    return Path(__file__).resolve().parent.parent / "hardware_profiles"


def list_profiles() -> list[str]:
    """Return the ids of the shipped profiles, sorted."""
    return sorted(f.name[:-5] for f in _folder().iterdir() if f.name.endswith(".toml"))


def profile_aliases() -> dict[str, str]:
    """Return alias -> id, for the aliases whose profile is shipped."""
    shipped = list_profiles()
    return {alias: target for alias, target in ALIASES.items() if target in shipped}


def shipped_text(name: str) -> tuple[str, str]:
    """Return (id, text) of the shipped profile with this id or alias; ProfileError otherwise."""
    known, aliases = list_profiles(), profile_aliases()
    if name not in known and name not in aliases:
        raise unknown_name("profile", name, [*known, *aliases], ProfileError)
    name = aliases.get(name, name)
    return name, (_folder() / f"{name}.toml").read_text(encoding="utf-8")


def table_text(name: str) -> str:
    """Return the text of a shipped table of published numbers, ``tables/NAME``."""
    return (_folder() / "tables" / name).read_text(encoding="utf-8")


def read_text(path: str | Path) -> str:
    """Return the text of a profile's file; ProfileError when it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ProfileError(
            f"{path}: cannot be read ({reason}); give a profile's .toml file, or one of "
            f"{', '.join(list_profiles())} without .toml"
        ) from None


def parse(text: str, where: str) -> Document:
    """Return the document in ``text``; ProfileError where it is no TOML."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"{where}: not a TOML file: {error}") from None


# --- extends -----------------------------------------------------------------------------------
def complete(
    document: Document, where: str, folder: Path | None = None, below: tuple[str, ...] = ()
) -> tuple[Document, tuple[str, ...]]:
    """Return the document with what it extends filled in, in today's schema, and its ancestors.

    where: the document's name in messages. folder: where a relative path in ``extends`` starts,
    None for a text without a file. below: the documents that led here, to find a circle. Tables
    are merged key by key; a quantity or a plain value replaces the parent's whole. ``schema``,
    ``id``, ``title`` and ``validation`` are the document's own. Raises ProfileError.
    """
    if "extends" not in document:
        return upgraded(document), ()
    parent = document["extends"]
    if not isinstance(parent, str):
        raise ProfileError(
            f"{where}: key extends: must be the id of a shipped profile or the path of a .toml "
            f"file, found {parent!r}"
        )
    if document.get("schema") == 1:
        raise ProfileError(f"{where}: key extends: needs schema = 2, found schema = 1")
    name, text, beside = _parent(parent, where, folder)
    chain = (*below, where)
    if name in chain:
        circle = " -> ".join((*chain[chain.index(name) :], name))
        raise ProfileError(f"{where}: key extends: goes in a circle, {circle}")
    base, older = complete(parse(text, name), name, beside, chain)
    return _merged(base, {k: v for k, v in document.items() if k != "extends"}), (name, *older)


def _parent(parent: str, where: str, folder: Path | None) -> tuple[str, str, Path | None]:
    """Return name in messages, text and folder of the document that ``where`` extends."""
    try:
        if not parent.endswith(".toml"):
            name, text = shipped_text(parent)
            return name, text, None
        if folder is None and not Path(parent).is_absolute():
            raise ProfileError(f"{parent}: is relative to a file, and this text is in none")
        path = ((folder or Path()) / parent).resolve()
        return str(path), read_text(path), path.parent
    except ProfileError as error:
        raise ProfileError(f"{where}: key extends: {error}") from None


def _merged(base: Document, document: Document) -> Document:
    found = {k: v for k, v in base.items() if k not in _OWN}
    if document.get("use") != base.get("use"):  # what only the parent's use needs
        found.pop({"cost-only": "numeric", "deploy": "differs"}.get(document.get("use", ""), ""), 0)
    for key, value in document.items():
        above = found.get(key)
        found[key] = value
        if isinstance(above, dict) and isinstance(value, dict):
            found[key] = above | value
    return {k: found[k] for k in (*_OWN, *found) if k in found}


# --- schema 1 ----------------------------------------------------------------------------------
_NEW_IN_2: Mapping[str, Mapping[str, str | bool]] = {
    # A quantity is named by its unit; what is no quantity, by "=" and its value.
    "topology": {
        "chips_x": "count",
        "routers_x": "count",
        "routers_y": "count",
        "cores_per_router": "count",
    },
    "core": {"fan_in": "count", "fan_out": "count", "state_bytes": "byte", "programs": "count"},
    "layout": {
        "neuron_bytes": "byte",
        "delay_slot_bytes": "byte",
        "synapse_overhead_bits": "bit",
        "axon_in_bytes": "byte",
        "axon_out_bytes": "byte",
        "program_bytes": "byte",
        "convolution_shared": True,
    },
    "energy": {"scope": "=per_event", "chip_message": "pJ"},
    "time": {"combine": "=additive", "spike_out": "ns", "message_in": "ns"},
}


def upgraded(document: Document) -> Document:
    """Return a document of schema 1 in schema 2; any other document as it is.

    One price of a hop becomes the price along rows and along columns; what schema 1 did not have
    is unknown.
    """
    if document.get("schema") != 1:
        return document
    found = document | {"schema": 2}
    for section, keys in _NEW_IN_2.items():
        table = found.get(section, {})
        if isinstance(table, dict):
            found[section] = table | {k: _new(v) for k, v in keys.items() if k not in table}
    energy = found["energy"]
    if isinstance(energy, dict) and "hop" in energy and not {"hop_x", "hop_y"} & set(energy):
        hop = energy["hop"]
        found["energy"] = {k: v for k, v in energy.items() if k != "hop"}
        found["energy"] |= {"hop_x": hop, "hop_y": hop}
    if found.get("use") == "cost-only":
        found.pop("numeric", None)
        found.setdefault(
            "differs", "A profile of schema 1 does not say how its arithmetic differs."
        )
    return found


def _new(kind: str | bool) -> Any:
    if isinstance(kind, bool):
        return kind
    if kind.startswith("="):
        return kind[1:]
    why = "not in a profile of schema 1"
    return {"value": "unknown", "unit": kind, "grade": "C", "source": why}

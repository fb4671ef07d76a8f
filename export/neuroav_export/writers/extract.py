"""Definitions of ours taken out of their modules, as one source text that imports nothing of ours.

A function or class is copied word for word, with everything of ours that it names; so what is
written into other people's folders cannot differ from what runs here. Modules are read, never
imported.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import neuroav

_PACKAGES = {"neuroav": Path(neuroav.__file__).parent, "neuroav_export": Path(__file__).parents[1]}
_Definition = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


def extract(
    roots: Mapping[str, Sequence[str]], substitutes: Mapping[str, str] | None = None
) -> str:
    """Return the source of the definitions ``roots`` (module -> names) and all that they need.

    Imports come first, then the definitions, those that others need before them. substitutes: name
    -> source that takes the place of that definition. Raises RuntimeError where two modules define
    one name, or a module of ours is imported as a whole.
    """
    text = _Text(dict(substitutes or {}))
    for module, names in roots.items():
        for name in names:
            text.add(module, name)
    text.add_statements()
    return text.source()


def implementing(folder: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return process class -> (module, names of the class and its models) of a package of ours."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for path in sorted(_path(folder).glob("*.py")):
        module = f"{folder}.{path.stem}"
        for name, node in _module(module).definitions.items():
            process = _implements(node)
            if process is not None:
                others = found.get(process, (module, (process,)))[1]
                found[process] = (module, (*others, name))
    return found


def module_text(module: str) -> str:
    """Return the docstring of a module of ours."""
    return ast.get_docstring(_module(module).tree) or ""


class _Module:
    """One parsed file: its top-level definitions, and what it imports."""

    def __init__(self, name: str) -> None:
        self.name = name
        text = _path(name).with_suffix(".py").read_text(encoding="utf-8")
        self.lines, self.tree = text.splitlines(), ast.parse(text)
        self.definitions: dict[str, _Definition] = {}
        # bound name -> (module, name in it or '' for the module itself)
        self.imports: dict[str, list[tuple[str, str]]] = {}
        self.statements: list[ast.stmt] = []  # that define nothing
        for node in self.tree.body:
            self._read(node)

    def _read(self, node: ast.stmt) -> None:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            self.definitions[node.name] = node
        elif isinstance(node, ast.Assign):
            self.definitions |= {t.id: node for t in node.targets if isinstance(t, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            self.definitions[node.target.id] = node
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                self.imports[alias.asname or alias.name] = [(node.module or "", alias.name)]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.partition(".")[0]
                self.imports.setdefault(bound, []).append((alias.name, ""))
        elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            self.statements.append(node)

    def text(self, node: ast.stmt) -> str:
        """Return the source of a statement with its decorators and the comment right above it."""
        decorators = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(d.lineno for d in decorators)]) - 1
        while first and self.lines[first - 1].startswith("#"):
            first -= 1
        return "\n".join(self.lines[first : node.end_lineno])


class _Text:
    """A text under construction."""

    def __init__(self, substitutes: dict[str, str]) -> None:
        self._substitutes = substitutes
        self._imports: dict[tuple[str, str], str] = {}  # (module, name) -> bound name
        self._parts: dict[str, tuple[str, str]] = {}  # name -> (where from, source), needed first
        self._open: set[tuple[str, str]] = set()

    def add(self, where: str, name: str) -> None:
        """Add what ``name`` means in a module: a definition with its needs, or an import."""
        module = _module(where)
        if name in self._substitutes:
            text = self._substitutes[name]
            for needed in set(_names(ast.parse(text))) - {name}:
                self.add(where, needed)
            self._enter(name, "a substitute", text)
            return
        if name in module.definitions:
            self._define(module, name)
        for source, original in module.imports.get(name, []):
            if source.partition(".")[0] not in _PACKAGES:
                self._imports[source, original] = name
            elif original != name or _is_module(f"{source}.{original}"):
                raise RuntimeError(
                    f"{where}: {name} cannot be taken along; import names one by one"
                )
            else:
                self.add(source, original)

    def _define(self, module: _Module, name: str) -> None:
        if (module.name, name) in self._open:
            return
        self._open.add((module.name, name))
        node = module.definitions[name]
        for needed in _names(node):
            self.add(module.name, needed)
        self._enter(name, module.name, module.text(node))

    def add_statements(self) -> None:
        """Add what a module does with definitions that have all been added."""
        for module in map(_module, sorted({module for module, _ in self._open})):
            for statement in module.statements:
                used = set(_names(statement))
                if used & self._parts.keys() >= used & module.definitions.keys() != set():
                    for needed in used:
                        self.add(module.name, needed)
                    self._enter(
                        f"{module.name}:{statement.lineno}", module.name, module.text(statement)
                    )

    def _enter(self, name: str, where: str, text: str) -> None:
        before = self._parts.setdefault(name, (where, text))
        if before != (where, text):
            raise RuntimeError(f"{name} is defined in {before[0]} and in {where}; rename one")

    def source(self) -> str:
        whole = [
            f"import {module}"
            if module.partition(".")[0] == bound
            else f"import {module} as {bound}"
            for (module, name), bound in sorted(self._imports.items())
            if not name
        ]
        by_module: dict[str, list[str]] = {}
        for (module, name), bound in sorted(self._imports.items()):
            if name:
                part = name if name == bound else f"{name} as {bound}"
                by_module.setdefault(module, []).append(part)
        named = [f"from {module} import {', '.join(n)}" for module, n in by_module.items()]
        parts = dict.fromkeys(text for _, text in self._parts.values())
        head = ["from __future__ import annotations", "", *whole, *named]
        return "\n".join(head) + "\n\n\n" + "\n\n\n".join(parts) + "\n"


@lru_cache(maxsize=64)
def _module(name: str) -> _Module:
    return _Module(name)


def _path(module: str) -> Path:
    """Return the folder of a package of ours, or the path of a module without its ending."""
    package, *parts = module.split(".")
    return _PACKAGES[package].joinpath(*parts)


def _is_module(name: str) -> bool:
    return _path(name).is_dir() or _path(name).with_suffix(".py").is_file()


def _names(node: ast.AST) -> Iterator[str]:
    """Yield every name that a piece of source reads, in the order of the source."""
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            yield part.id


def _implements(node: _Definition) -> str | None:
    """Return the process of a class that ``@implements`` one."""
    for call in getattr(node, "decorator_list", []):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "implements":
            return next((ast.unparse(k.value) for k in call.keywords if k.arg == "proc"), None)
    return None

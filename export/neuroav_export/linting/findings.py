"""What lint finds, and the list that collects it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from neuroav.errors import NeuroavError
from neuroav_export.linting.rules import RULES, Severity

NETWORK = "(network)"  # the layer of a finding about the network as a whole


@dataclass(frozen=True)
class Finding:
    """One thing about one layer.

    layer: qualified name in the module, '(network)' for the whole; problem: what was found there;
    why: it matters; rewrite: what to write instead; severity: 'error' cannot be deployed, 'note'
    can; rule: its row of ``docs/lint.md``.
    """

    layer: str
    problem: str
    why: str
    rewrite: str
    severity: Severity
    rule: str


class Findings:
    """Findings in the order they were made, each once."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], Finding] = {}

    def add(self, layer: str, rule: str, problem: str, rewrite: str = "") -> None:
        """Add a finding; the rule gives why, severity and, unless given here, the rewrite."""
        row = RULES[rule]
        self._found.setdefault(
            (layer, rule, problem),
            Finding(layer, problem, row.why, rewrite or row.rewrite, row.severity, rule),
        )

    def error(self, layer: str, error: NeuroavError, name: str = "", rule: str = "") -> None:
        """Add what the compiler raised for ``layer``, which its message may call ``name``.

        rule: in place of the error's own.
        """
        rule = rule or error.rule
        text = str(error).removeprefix(f"{layer}: ").removeprefix(f"{name}: ")
        problem, _, fix = text.partition("; ")
        self.add(layer, rule or "other", problem, "" if rule else fix)

    def take(self, other: Findings) -> None:
        """Add all findings of another list."""
        self._found = {**other._found, **self._found}

    @property
    def errors(self) -> int:
        """How many of them keep the network from being deployed."""
        return sum(f.severity == "error" for f in self._found.values())

    def has(self, rule: str) -> bool:
        """Return whether anything breaks ``rule``."""
        return any(f.rule == rule for f in self._found.values())

    def about(self, layer: str) -> bool:
        """Return whether there is a finding about ``layer``."""
        return any(f.layer == layer for f in self._found.values())

    def sorted(self, order: Iterable[str]) -> list[Finding]:
        """Return all findings: errors first, then by layer in ``order``, the network last."""
        rank = {layer: i for i, layer in enumerate(order)}
        last = len(rank)

        def key(found: Finding) -> tuple[bool, bool, int]:
            network = found.layer == NETWORK
            return found.severity == "note", network, rank.get(found.layer, last)

        return sorted(self._found.values(), key=key)

"""Make the fast executor take one of its ways, whatever it would choose."""

from __future__ import annotations

from contextlib import ExitStack
from unittest import mock

from neuroav.sim import attentions, currents, populations

WAYS = ("as it chooses", "whole products", "events", "torch alone")


def forced(way: str) -> ExitStack:
    """Return a context in which every layer is computed one way; the last is a GPU's."""
    stack = ExitStack()
    if way != WAYS[0]:
        patch = mock.patch.object(currents.Events, "pay", return_value=way == "events")
        stack.enter_context(patch)
    if way == WAYS[-1]:
        for module, name, other in (
            (populations, "lif", "steps"),
            (attentions, "attention", "products"),
        ):
            plain = getattr(module, f"{name}_{other}")
            stack.enter_context(mock.patch.object(module, f"{name}_compiled", plain))
    return stack

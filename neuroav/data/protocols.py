"""Splits: as published ('paper'), and with nobody and nothing in two of them ('clean').

A clean split deals out *groups* (speakers, actors, source recordings) rather than samples, with a
seed, so that train, validation and test have none in common. ``overlaps`` is what proves it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from neuroav.data.cache import SPLITS
from neuroav.data.plans import Item
from neuroav.errors import DataError

PROTOCOLS = ("clean", "paper")


def deal_groups(groups: Sequence[str], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """Return the split of every group, drawn with ``seed``.

    groups: the group of every sample, in any order; a group may have many. shares: split ->
    share of the samples wanted; they add up to 1. Groups are shuffled and dealt one at a time to
    the split that lacks most of its share, so the sizes come as close as whole groups allow. The
    result depends on the set of (group, number of samples), not on their order. DataError for
    fewer groups than splits.
    """
    counts: dict[str, int] = defaultdict(int)
    for group in groups:
        counts[group] += 1
    if len(counts) < len(shares):
        raise DataError(
            f"a split into {', '.join(shares)} needs at least {len(shares)} groups, found "
            f"{len(counts)}: {', '.join(sorted(counts))}"
        )
    names = sorted(counts)
    order = np.random.default_rng(seed).permutation(len(names))
    # The largest first, equals as shuffled: what is dealt last then evens out the sizes.
    dealt = sorted((names[i] for i in order), key=lambda name: -counts[name])
    total, have = len(groups), dict.fromkeys(shares, 0)
    found: dict[str, str] = {}
    for place, group in enumerate(dealt):
        empty = [s for s in shares if not have[s]]
        if len(dealt) - place <= len(empty):  # just enough left to give every split one
            open_splits = empty
        else:
            open_splits = list(shares)
        lacking = {s: shares[s] * total - have[s] for s in open_splits}
        split = max(open_splits, key=lambda s: lacking[s])
        found[group] = split
        have[split] += counts[group]
    return found


def overlaps(items: Iterable[Item]) -> dict[str, dict[str, list[str]]]:
    """Return the groups that are in more than one split: kind -> group -> its splits.

    Empty for a clean protocol.
    """
    seen: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for item in items:
        for kind, group in item.groups.items():
            seen[kind][group].add(item.split)
    return {
        kind: {g: sorted(s, key=SPLITS.index) for g, s in sorted(found.items()) if len(s) > 1}
        for kind, found in seen.items()
        if any(len(s) > 1 for s in found.values())
    }

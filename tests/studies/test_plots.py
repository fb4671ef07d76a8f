"""Figures: labels keep apart, files are whole and the same every time, odd grids are drawn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.figure import Figure

from neuroav.studies import plots, summary
from neuroav.studies.sweep_plot import sweep_figure


@pytest.mark.parametrize("places", [[], [3.0], [1.0, 1.0, 1.0], [0.0, 5.0, 5.1, 5.2, 9.0],
                                    [2.0, 1.9, 1.0, 0.95, 0.0]])  # fmt: skip
def test_labels_keep_apart_in_their_order_and_nearby(places):
    found = plots.spread_out(places, 0.5)
    order = np.argsort(places, kind="stable")
    assert all(b - a >= 0.5 - 1e-9 for a, b in itertools.pairwise(np.array(found)[order]))
    assert np.mean(found or 0) == pytest.approx(np.mean(places or 0))
    assert all(abs(a - b) <= 0.5 * len(places) for a, b in zip(found, places, strict=True))


def test_places_that_are_far_apart_stay():
    assert plots.spread_out([3.0, 1.0, 2.0], 0.5) == [3.0, 1.0, 2.0]


def test_colours():
    assert len(set(plots.COLOURS)) == len(plots.MARKERS) == 7
    assert plots.colours(2) == list(plots.COLOURS[:2])
    assert len(set(plots.colours(12))) == 12


def test_style_leaves_a_users_settings_alone():
    before = rcParams["font.size"]
    with plots.style():
        assert rcParams["font.size"] == 9
    assert rcParams["font.size"] == before


def test_files_are_whole_and_the_same_every_time(tmp_path):
    def draw(folder):
        with plots.style():
            figure = Figure()
            figure.subplots().plot([1, 2], [3, 4])
            return [path.read_bytes() for path in plots.save(figure, folder, "x")]

    first, second = draw(tmp_path / "a"), draw(tmp_path / "b")
    assert first == second
    assert first[0].startswith(b"<?xml")
    assert first[1].startswith(b"\x89PNG")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["x.png", "x.svg"]


GRIDS = {
    "one key": {"scmrl.alpha": (0.0, 0.5, 1.0), "train.seed": (0, 1)},
    "two keys": {"train.learning_rate": (1e-4, 1e-3, 1e-2), "data.steps": (4, 8)},
    "three keys": {"model.name": ("add", "scmrl"), "data.steps": (4, 8), "data.preset": ("a", "b")},
    "seeds only": {"train.seed": (0, 1, 2)},
    "one value": {"model.self_attention": (True,)},
    "many lines": {"scmrl.alpha": (0.0, 1.0), "data.steps": tuple(range(1, 10))},
}


@pytest.mark.parametrize("keys", GRIDS)
@pytest.mark.parametrize("sides", [("float",), ("float", "deployed 8 bits", "deployed 4 bits")])
def test_every_kind_of_grid_is_drawn(tmp_path, keys, sides):
    rng = np.random.default_rng(0)
    rows = [
        {"name": str(point), "values": dict(zip(GRIDS[keys], point, strict=True)), "val_loss": 1.0,
         "state": "finished", "sides": {s: {k: rng.random() for k in ("val", "test")}
                                        for s in sides}}
        for point in itertools.product(*GRIDS[keys].values())
    ]  # fmt: skip
    rows[-1] |= {"state": "failed"} if len(rows) > 1 else {}
    found = summary.groups(rows)
    results = {"keys": list(GRIDS[keys]), "sides": list(sides), "rows": rows, "groups": found,
               "best": summary.best(found)}  # fmt: skip
    made = sweep_figure(results, tmp_path)
    assert [path.name for path in made] == ["sweep.svg", "sweep.png"]
    assert all(path.stat().st_size > 5000 for path in made)

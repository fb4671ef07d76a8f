"""Means, spreads and the choice: on validation, never on test."""

from __future__ import annotations

import csv
import io

import pytest

from neuroav.studies import summary


def row(alpha, seed, val, test, *, loss=1.0, deployed=None):
    sides = {"float": {"val": val, "test": test}}
    if deployed is not None:
        sides["deployed"] = {"val": val, "test": deployed, "agreement": 0.9, "file": "d.nav"}
    return {
        "name": f"alpha={alpha}_seed={seed}", "values": {"scmrl.alpha": alpha, "train.seed": seed},
        "state": "finished", "val_loss": loss, "seconds": 2.0, "sides": sides,
    }  # fmt: skip


def failed(alpha, seed):
    return {"name": f"alpha={alpha}_seed={seed}", "state": "failed", "error": "loss is nan",
            "values": {"scmrl.alpha": alpha, "train.seed": seed}}  # fmt: skip


def test_spread_is_that_of_a_sample():
    # The published runs of S-CMRL with alpha 1.5: 72.31 +- 0.94
    found = summary.spread([72.72, 71.24, 72.98])
    assert (found["mean"], found["sd"]) == pytest.approx((72.31, 0.938), abs=0.005)
    assert summary.spread([0.5]) == {"mean": 0.5, "sd": None}
    assert summary.spread([]) == {"mean": None, "sd": None}


def test_groups_join_seeds():
    first, second = summary.groups(
        [row(0, 0, 0.8, 0.7, deployed=0.6), row(0, 1, 0.6, 0.5, deployed=0.4), failed(1, 0)]
    )
    assert (first["values"], first["runs"], first["seeds"]) == ({"scmrl.alpha": 0}, 2, [0, 1])
    assert first["sides"]["float"]["val"]["mean"] == pytest.approx(0.7)
    assert first["sides"]["deployed"]["test"]["mean"] == pytest.approx(0.5)
    assert "file" not in first["sides"]["deployed"]
    assert (second["runs"], second["failed"], second["sides"]) == (0, 1, {})


def test_the_choice_looks_at_validation_only():
    found = summary.groups([row(0, 0, 0.9, 0.1), row(1, 0, 0.8, 0.99)])
    best = summary.best(found)
    assert best["values"] == {"scmrl.alpha": 0}
    assert best["sides"]["float"]["test"]["mean"] == 0.1
    assert "validation" in best["why"]


def test_the_choice_among_equals_and_incomplete_groups():
    equal = summary.groups([row(0, 0, 0.9, 0.5, loss=0.4), row(1, 0, 0.9, 0.4, loss=0.3)])
    assert summary.best(equal)["values"] == {"scmrl.alpha": 1}
    lucky = [row(0, 0, 0.9, 0.5), failed(0, 1), row(1, 0, 0.8, 0.5), row(1, 1, 0.8, 0.5)]
    assert summary.best(summary.groups(lucky))["values"] == {"scmrl.alpha": 1}
    assert summary.best(summary.groups([failed(0, 0)])) is None


def test_flat_table_has_one_line_per_run_and_every_column():
    text = summary.flat([row(0, 0, 0.8, 0.7, deployed=0.6), failed(1, 0)])
    first, second = csv.DictReader(io.StringIO(text))
    assert (first["scmrl.alpha"], first["deployed test"], first["error"]) == ("0", "0.6", "")
    assert (second["state"], second["error"], second["float val"]) == ("failed", "loss is nan", "")


def test_words():
    assert summary.as_text({"mean": 0.97234, "sd": 0.0042}) == "0.972 ± 0.004"
    assert summary.as_text({"mean": 0.5, "sd": None}) == "0.500"
    assert summary.as_text({"mean": None, "sd": None}) == "-"
    assert summary.describe({"a.b": 1, "c": "x"}) == "a.b 1, c x"
    assert summary.describe({}) == "the one setting"

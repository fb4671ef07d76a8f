"""Combinations: every one, in order, readable names, and errors before anything is run."""

from __future__ import annotations

import re

import pytest

from neuroav.errors import ConfigError
from neuroav.studies.grid import check_folder, combinations, short_key, value_text
from neuroav.training.config import dump_config, load_config


def test_every_combination_with_the_last_key_fastest():
    found = combinations({"scmrl.alpha": ["0", "0.5"], "train.seed": ["0", "1"]}, model="scmrl")
    assert [c.name for c in found] == [
        "alpha=0_seed=0", "alpha=0_seed=1", "alpha=0.5_seed=0", "alpha=0.5_seed=1",
    ]  # fmt: skip
    assert found[2].values == {"scmrl.alpha": 0.5, "train.seed": 0}
    assert found[2].setting == (0.5,)
    assert (found[2].config.model.name, found[2].config.scmrl.alpha) == ("scmrl", 0.5)


def test_names_are_readable_and_tell_keys_apart():
    found = combinations({"data.seed": ["1"], "train.seed": ["2"], "model.name": ["add"]})
    assert found[0].name == "data.seed=1_train.seed=2_model.name=add"
    assert short_key("model.name") == "model"
    assert [value_text(v) for v in (1.0, 1e-5, True, "a b/c", 3)] == [
        "1", "1e-05", "true", "a-b-c", "3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("over", "fixed", "message"),
    [
        ({}, {}, "nothing to sweep over"),
        ({"train.epoch": ["1"]}, {}, "unknown configuration key 'train.epoch'.*'train.epochs'"),
        ({"train.epochs": ["1", "no"]}, {}, "train.epochs: .*found 'no'"),
        ({"train.epochs": ["1", "1"]}, {}, "combination epochs=1 comes twice"),
        ({"scmrl.alpha": ["0.5", "5e-1"]}, {}, "combination alpha=0.5 comes twice"),
        ({"train.seed": ["1"]}, {"overrides": {"train.seed": "2"}}, "train.seed is both fixed and"),
        ({"model.name": ["add"]}, {"model": "audio"}, "model.name is both fixed and swept"),
    ],
)
def test_what_cannot_be_swept_is_named(over, fixed, message):
    with pytest.raises(ConfigError, match=message):
        combinations(over, **fixed)


def test_a_folder_of_another_configuration_is_refused(tmp_path):
    stored = load_config(overrides={"train.epochs": "3", "scmrl.alpha": "2"})
    check_folder(tmp_path, stored)  # nothing there
    (tmp_path / "config.toml").write_text(dump_config(stored))
    check_folder(tmp_path, stored)
    with pytest.raises(ConfigError, match=re.escape("(scmrl.alpha was 2.0, is 1.5)")):
        check_folder(tmp_path, load_config(overrides={"train.epochs": "3"}))

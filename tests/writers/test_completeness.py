"""Every node class and every format: carried, or named with the reason; the page says the same."""

from __future__ import annotations

import pytest
import samples

from neuroav import integer as ig
from neuroav.cli.convert import FORMATS as OFFERED
from neuroav.errors import ConfigError
from neuroav.stages import ALLOWED
from neuroav_export.writers import FORMATS, WRITERS, carries_table, convert

PAGE = (samples.ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
CONSUMED = {
    "integer": {c.__name__ for c in (*ig.POPULATION_CLASSES, *ig.PROJECTION_CLASSES)},
    "real": {c.__name__ for c in ALLOWED["lowered"]},
}


def test_command_offers_every_writer():
    assert set(OFFERED) == set(WRITERS) == set(FORMATS)
    assert all(WRITERS[name] is FORMATS[name].write for name in WRITERS)


@pytest.mark.parametrize("name", FORMATS)
def test_every_class_is_carried_or_refused_with_a_reason(name):
    module = FORMATS[name]
    assert not module.CARRIES.keys() & module.UNSUPPORTED.keys()
    assert module.CARRIES.keys() | module.UNSUPPORTED.keys() == CONSUMED[module.CONSUMES]
    assert all(len(text) > 3 for text in (*module.CARRIES.values(), *module.UNSUPPORTED.values()))


def test_every_real_node_that_is_carried_has_its_handler():
    handlers = {c.__name__ for c in FORMATS["nir"]._HANDLERS}
    assert handlers == FORMATS["nir"].CARRIES.keys()


@pytest.mark.parametrize("name", FORMATS)
def test_page_shows_the_table(name):
    section = PAGE.partition(f"\n## {name}")[2].partition("\n## ")[0]
    assert carries_table(name) in section


def test_unknown_format_offers_near_matches(tmp_path):
    with pytest.raises(ConfigError, match="unknown format 'onxx'.*did you mean 'onnx'"):
        convert(None, "onxx", tmp_path / "x")

"""The certificate: the same bytes every time, only where equal, and only where something fired."""

from __future__ import annotations

import re

import numpy as np
import pytest

from neuroav import certificate, navfile, simulate
from neuroav.errors import DataError
from neuroav.explain import verify_explained
from neuroav.sim import reference
from neuroav.simulate import resolve_deployment

TINY = "shipped:tiny.nav"


def certify(out, **options):
    common = {"backends": ["reference", "fast"], "explain": False, "cache_dir": out.parent}
    return verify_explained(resolve_deployment(TINY), certificate=out, **common | options)


def test_the_page_says_what_was_compared(tmp_path):
    found = certify(tmp_path / "c.md")
    page = (tmp_path / "c.md").read_text(encoding="utf-8")
    assert found["certificate"] == str(tmp_path / "c.md")
    assert found["spikes_compared"] == 2069
    cells = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", page, re.M))
    assert cells["file"] == "tiny.nav"
    assert (
        cells["content hash (sha256)"] == f"`{navfile.load(resolve_deployment(TINY)).content_hash}`"
    )
    assert cells["target profile"] == "loihi2"
    assert cells["outputs compared, per executor"] == f"{12 * 6 * 79:,}"
    assert cells["of these messages (not 0)"] == "2,069"
    assert cells["numpy"] == np.__version__
    for backend in ("reference", "fast"):
        assert re.search(rf"^\| {backend} \| .* \| `{found['digests'][backend]}` \|$", page, re.M)
    assert "Nothing here ran on silicon" in page
    assert not re.search(r"\b20\d\d-\d\d-\d\d\b", page)  # no date
    assert str(tmp_path) not in page


def test_the_same_run_gives_the_same_bytes(tmp_path):
    certify(tmp_path / "a.md")
    certify(tmp_path / "b.md")
    certify(tmp_path / "c.md", samples=2)
    assert (tmp_path / "a.md").read_bytes() == (tmp_path / "b.md").read_bytes()
    assert (tmp_path / "a.md").read_bytes() != (tmp_path / "c.md").read_bytes()


def test_unequal_executors_get_none(tmp_path, monkeypatch):
    def wrong(deployment, inputs, **options):
        for trace in reference.run(deployment, inputs):
            trace.outputs["join"][0, 0, 0] += 1
            yield trace

    monkeypatch.setitem(simulate.BACKENDS, "fast", lambda: wrong)
    found = certify(tmp_path / "c.md")
    assert (found["equal"], found["certificate"]) == (False, None)
    assert list(tmp_path.iterdir()) == []


def test_equal_silence_is_refused(tmp_path):
    deployment = navfile.load(resolve_deployment(TINY))
    found = {"equal": True, "spikes_compared": 0, "samples": 3}
    with pytest.raises(DataError, match="no message was sent in 3 samples"):
        certificate.write(tmp_path / "c.md", "tiny.nav", deployment, found, "probe")
    with pytest.raises(DataError, match="not equal"):
        certificate.text("tiny.nav", deployment, found | {"equal": False}, "probe")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(certificate, "PACKAGES", ("numpy", "no-such-package"))
    assert certificate.versions()["no-such-package"] == "not installed"

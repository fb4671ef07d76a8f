"""What ``neuroav verify --explain`` and ``--against`` show, of a file altered in one threshold."""

from __future__ import annotations

import re
from dataclasses import replace

from neuroav import navfile
from neuroav.simulate import resolve_deployment


def test_verify_shows_what_it_explains(run, tmp_path):
    tiny = navfile.load(resolve_deployment("shipped:tiny.nav"))
    pops = dict(tiny.integer.populations)
    pops["audio_lif"] = replace(pops["audio_lif"], threshold=pops["audio_lif"].threshold + 60)
    navfile.save(replace(tiny, integer=replace(tiny.integer, populations=pops)), tmp_path / "b.nav")
    args = ("verify", "shipped:tiny.nav", "--explain", "--against", tmp_path / "b.nav")
    done = run(*args, "--certificate", tmp_path / "c.md")
    assert done.code == 1
    assert done.out.startswith("reference, fast: equal\n")
    assert "against: NOT THE SAME" in done.out
    assert not (tmp_path / "c.md").exists()
    for words in (
        r"audio_lif +100\.000 +100\.000 +100\.000 +- +-",
        r"head +weight +a smaller unit",
        r"audio_lif +threshold +0 +\d+ +\d+ +1 +threshold",
        r"first other spike: audio_lif, sample \d+ step \d+ index .*: 1 -> 0 \(cause: threshold\)",
    ):
        assert re.search(words, done.out), words
    assert run(*args, "--json").json["against"]["first_divergence"]["cause"] == "threshold"
    done = run("verify", tmp_path / "b.nav", "--explain")
    assert done.code == 0  # all executors run the altered file alike
    assert re.search("audio_lif +threshold +another export: these are not", done.out)
    assert re.search(r"Not as the float network.*\n(.*\n)+audio_lif +threshold", done.out)

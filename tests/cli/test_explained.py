"""What ``neuroav verify`` shows of stages, of a file altered in one threshold, and of digests."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

from neuroav import navfile
from neuroav.files import with_note
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
        r"fake-quantized +folded +100 +100 +rounding of weight\n",
        r"folded: not compared: give --run RUN",
        r"changes \(cause: rounding of weight\):\n  head, sample 0 step 5 index 2: ",
        r"audio_lif +100 +100 +100 +100\n",
        r"head +\d+\.\d+ +\d+\.\d+ +100 +100\n",
        r"most of it back by\n  a smaller unit \(--calibration mse\), or .*:\n(.*\n)+ +1 +head ",
        r"audio_lif +threshold +0 +\d+ +\d+ +1 +threshold",
        r"first other spike: audio_lif, sample \d+ step \d+ index .*: 1 -> 0 \(cause: threshold\)",
    ):
        assert re.search(words, done.out), words
    assert run(*args, "--json").json["against"]["first_divergence"]["cause"] == "threshold"
    done = run("verify", tmp_path / "b.nav", "--explain")
    assert done.code == 0  # all executors run the altered file alike
    assert re.search(r"back by\n  another export: these are not(.*\n)+ +1 +audio_lif", done.out)
    assert re.search(r"Not as the float network.*\n(.*\n)+audio_lif +threshold", done.out)


def test_verify_fits_100_columns(run):
    done = run("verify", "shipped:tiny.nav", "--explain", COLUMNS="100")
    assert done.code == 0
    assert max(map(len, done.out.splitlines())) <= 100


def test_verify_stores_and_checks_digests(run, tmp_path):
    path = tmp_path / "tiny.nav"
    shutil.copy(resolve_deployment("shipped:tiny.nav"), path)
    done = run("verify", path, "--digests", "check")
    assert (done.code, done.out) == (1, "")
    assert "carries no digests; store some with" in done.err
    done = run("verify", path, "--digests", "store")
    assert done.code == 0
    assert done.out.startswith("reference, fast, digests in the file: equal\n")
    assert "digests carried in the file: all equal, 2 stored now" in done.out
    table = json.loads(navfile.load_note(path))
    table["entries"][0]["digest"] = "0" * 64
    with_note(path, json.dumps(table), path)
    done = run("verify", path, "--digests", "check", "--backends", "reference")
    assert done.code == 1
    assert done.out.startswith("reference, digests in the file: NOT EQUAL\n")
    assert re.search(r"reference +0{12} +DIFFERENT .*\nfast +[0-9a-f]{12} +equal ", done.out)
    found = run("verify", path, "--digests", "store", "--json")
    assert (found.code, found.json["carried"]["stored"]) == (1, 0)

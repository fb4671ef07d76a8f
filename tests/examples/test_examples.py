"""Every example runs, and says what its description promises."""

from __future__ import annotations

import subprocess
import sys

import pytest
import samples

EXAMPLES = samples.ROOT / "examples"
PROMISES = {
    "tiny.py": ["47 neurons, 192 synapses", "right: 12 of 12; reference and fast equal: True"],
    "make_shipped.py": ["tiny.nav: 47 neurons"],
    "norse_network.py": ["deployed 1.000, agreement 1.000", "reference = fast: True"],
    "own_network.py": ["equal: True", "agreement"],
    "stream_onnx.py": ["tiny.onnx: inputs audio, visual;", "sample 0: sound", "72 steps"],
    "three_modalities.py": ["deployed, right: 1.00", "reference = fast: True"],
}


ELSEWHERE = {"make_standin.py"}  # needs recordings: test_standin.py


def test_every_example_is_listed():
    assert {p.name for p in EXAMPLES.glob("*.py")} == set(PROMISES) | ELSEWHERE


@pytest.mark.parametrize("name", PROMISES)
def test_example_runs(name, tmp_path):
    script = EXAMPLES / name
    arguments = [str(tmp_path / "tiny.nav")] if name == "make_shipped.py" else []
    done = subprocess.run([sys.executable, str(script), *arguments], cwd=tmp_path, timeout=300,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    for text in PROMISES[name]:
        assert text in done.stdout

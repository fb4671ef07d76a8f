"""lava-nc and lava-dl import in a fresh process, and only through the shim."""

import ast
import importlib.util
from pathlib import Path

import pytest

from neuroav.errors import MissingDependency
from neuroav.sim.lava import shim

pytestmark = pytest.mark.lava

ROOT = Path(__file__).resolve().parents[2]

LAVA_NC = """
import dataclasses, sys
before = dataclasses.dataclass
from neuroav.sim.lava import shim
shim.prepare()
shim.prepare()
assert dataclasses.dataclass is before
import lava.proc.conv.process, lava.proc.dense.process, lava.proc.graded.process
import lava.proc.io.sink, lava.proc.lif.process, lava.proc.sparse.process
import numpy as np
from lava.magma.core.process.ports.ports import ReshapePort
port = ReshapePort((6,), (2, 3))
assert port.get_transform_func_fwd()(np.zeros((2, 3))).shape == (6,)
assert port.get_transform_func_bwd()(np.zeros(6)).shape == (2, 3)
"""

LAVA_DL = """
from neuroav.sim.lava import shim
netx = shim.import_netx()
assert netx.hdf5.Network
import lava.lib.dl.slayer as slayer
assert slayer.neuron.cuba
"""

FORKING = """
import multiprocessing
multiprocessing.Lock()  # settles the start method
before = multiprocessing.set_start_method
from neuroav.sim.lava import shim
shim.prepare()
import lava.proc.lif.process
assert multiprocessing.set_start_method is before
assert multiprocessing.get_start_method() == "fork"
"""

NO_TORCH = """
import sys
import neuroav.sim.lava.worker
from neuroav.sim.lava import shim
shim.prepare()
import neuroav.sim.lava.engine
heavy = {"torch", "scipy.signal", "lava.lib"} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.mark.parametrize(
    "code", [LAVA_NC, LAVA_DL, NO_TORCH, FORKING], ids=["lava-nc", "lava-dl", "worker", "forking"]
)
def test_a_fresh_process_imports(script, code):
    script("-c", code)


def test_importing_the_executor_does_not_import_lava(script):
    script("-c", "import sys, neuroav.sim.lava; assert 'lava' not in sys.modules")


def test_a_missing_package_is_named_with_the_line_that_installs_it(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name.startswith("lava") else find(name)
    )
    with pytest.raises(MissingDependency, match=r"lava-nc .*pip install 'neuroav\[lava\]'"):
        shim.require_lava()


def test_lava_is_imported_only_behind_the_shim():
    """Elsewhere ``import lava`` would fail or not depending on what was imported before."""
    for file in [*ROOT.glob("neuroav/**/*.py"), *ROOT.glob("export/**/*.py")]:
        text = file.read_text(encoding="utf-8")
        imported = set()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(node.module or "")
        if any(name.split(".")[0] == "lava" for name in imported):
            inside = ROOT / "neuroav/sim/lava" in file.parents
            inside |= file.name == "lava_neuron.py"  # copied beside a script, never imported here
            assert inside or "neuroav.sim.lava" in text, f"{file} imports lava without the shim"

"""Makes lava-nc 0.10.0 importable on Python 3.10 to 3.13 with current NumPy.

The one place that imports ``lava`` for the first time; everything else calls ``prepare`` before.
No file of the installed package is changed. What is mended, and why:

* ``lava/magma/compiler/var_model.py`` gives dataclass fields instances of other dataclasses as
  default values. Python 3.11 refuses defaults without ``__hash__``, so the classes of that module
  get one while it is being imported.
* ``ReshapePort`` calls ``np.reshape(newshape=...)``, a keyword NumPy 2.4 no longer has. The error
  would arise inside a child process and block the run for ever.
* the compiler finds, sorts and lists the processes of a network by functions that call themselves
  for every one, which ends at Python's limit of calls for about 900 processes in a row; here they
  are loops, and the processes come in the order of their creation, not in a random one.
* for every single process the compiler executes all files beside its definition to find its models;
  the answer is the same for all processes of a class, so it is looked up once.
* importing Lava calls ``multiprocessing.set_start_method("fork")``, which fails when a method is
  already set, even this one; ``prepare`` lets a process that already forks pass.
* ``lava.lib.dl.slayer`` imports torchvision for object detection only; where it is absent an empty
  stand-in lets ``lava.lib.dl.netx`` import, and is taken away again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import importlib.util
import multiprocessing
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from neuroav.errors import MissingDependency

_VAR_MODEL = "lava.magma.compiler.var_model"
_SETS_START_METHOD = "lava.magma.runtime.message_infrastructure.multiprocessing"
_INSTALL = (
    "install it with: pip install 'neuroav[lava]' (Python 3.10) or, for Python 3.11 and newer, "
    "`make` or `uv sync --extra lava`; see docs/installation.md"
)


def prepare() -> None:
    """Import the base of lava-nc, mended; calling it again does nothing.

    Raises MissingDependency, with the line that installs it, if lava-nc is not there.
    """
    if _VAR_MODEL in sys.modules:
        return
    require_lava()
    with _hashable_dataclasses(_VAR_MODEL), _forking_already():
        importlib.import_module(_SETS_START_METHOD)
        importlib.import_module(_VAR_MODEL)
    _mend_reshape_port()
    _search_processes_without_recursion()
    _search_models_once_per_class()


def require_lava() -> None:
    """Raise MissingDependency, with the line that installs it, if lava-nc is not there."""
    _require("lava.magma", "lava-nc")


def import_netx() -> types.ModuleType:
    """Return ``lava.lib.dl.netx``; raises MissingDependency if lava-nc or lava-dl is not there."""
    prepare()
    _require("lava.lib.dl", "lava-dl")
    absent = "torchvision" not in sys.modules and importlib.util.find_spec("torchvision") is None
    with _stand_in_for_torchvision() if absent else contextlib.nullcontext():
        return importlib.import_module("lava.lib.dl.netx")


def _require(module: str, distribution: str) -> None:
    try:
        found = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        raise MissingDependency(f"{distribution} is not installed; {_INSTALL}")


@contextmanager
def _hashable_dataclasses(module: str) -> Iterator[None]:
    """While active, dataclasses defined in ``module`` hash by identity if they would not at all."""
    original = dataclasses.dataclass

    @functools.wraps(original)
    def dataclass(cls=None, /, **options):
        if cls is None:
            return functools.partial(dataclass, **options)
        made = original(cls, **options)
        if made.__module__ == module and made.__hash__ is None:
            made.__hash__ = object.__hash__
        return made

    dataclasses.dataclass = dataclass
    try:
        yield
    finally:
        dataclasses.dataclass = original


@contextmanager
def _forking_already() -> Iterator[None]:
    """While active, setting the start method that is set already does nothing."""
    original = multiprocessing.set_start_method

    @functools.wraps(original)
    def set_start_method(method, force=False):
        if method != multiprocessing.get_start_method(allow_none=True):
            original(method, force)

    multiprocessing.set_start_method = set_start_method
    try:
        yield
    finally:
        multiprocessing.set_start_method = original


def _mend_reshape_port() -> None:
    ports = importlib.import_module("lava.magma.core.process.ports.ports")

    def forward(self):
        return functools.partial(np.reshape, shape=self.shape)

    def backward(self):
        return functools.partial(np.reshape, shape=self.old_shape)

    if np.lib.NumpyVersion(np.__version__) >= "2.1.0":  # the first with the keyword ``shape``
        ports.ReshapePort.get_transform_func_fwd = forward
        ports.ReshapePort.get_transform_func_bwd = backward


def _search_processes_without_recursion() -> None:
    graphs = importlib.import_module("lava.magma.compiler.compiler_graphs")

    def find_processes(proc, seen_procs=None):
        found, waiting = {proc}, [proc]
        while waiting:
            process = waiting.pop()
            for kind in ("in_ports", "var_ports", "out_ports", "ref_ports"):
                for port in getattr(process, kind).members:
                    ends = [*port.get_src_ports(), *port.get_dst_ports()]
                    fresh = {end.process for end in ends} - found
                    found |= fresh
                    waiting += fresh
        return sorted(found, key=lambda process: process.id)

    def is_dag(self, graph=None):
        graph = self if graph is None else graph
        return graphs.ntx.is_directed_acyclic_graph(graph), graph

    def flatten_list_recursive(nested):
        flat, waiting = [], list(reversed(nested))
        while waiting:
            entry = waiting.pop()
            if isinstance(entry, list):
                waiting += reversed(entry)
            else:
                flat.append(entry)
        return flat

    vars(graphs).update(
        find_processes=find_processes, flatten_list_recursive=flatten_list_recursive
    )
    graphs.DiGraphBase.is_dag = is_dag


def _search_models_once_per_class() -> None:
    graphs = importlib.import_module("lava.magma.compiler.compiler_graphs").ProcGroupDiGraphs
    search = graphs._find_proc_models
    found: dict[type, list] = {}

    def find(proc):
        if type(proc) not in found:
            found[type(proc)] = search(proc)
        return list(found[type(proc)])

    graphs._find_proc_models = staticmethod(find)


@contextmanager
def _stand_in_for_torchvision() -> Iterator[None]:
    """Offer empty torchvision modules for one import only, so that nobody else finds them."""
    package = types.ModuleType("torchvision")
    package.__path__ = []
    made = {package.__name__: package}
    for name in ("ops", "transforms"):
        part = types.ModuleType(f"torchvision.{name}")
        setattr(package, name, part)
        made[part.__name__] = part
    sys.modules.update(made)
    try:
        yield
    finally:
        for name in made:
            del sys.modules[name]

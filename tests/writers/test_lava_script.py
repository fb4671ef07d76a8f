"""The folder with a Lava script: run alone, in a process of its own, it gives fast's spikes."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import samples
from click.testing import CliRunner
from strategies_intgraph import make_deployment

from neuroav import integer as ig
from neuroav import navfile
from neuroav.cli.group import cli
from neuroav.errors import ConfigError, DataError, UnsupportedNode
from neuroav.sim import fast
from neuroav.sim.trace import SpikeDigest, Trace, collect
from neuroav_export import compile_module
from neuroav_export.writers import lava as writer
from neuroav_export.writers.extract import implementing

TINY = samples.ROOT / "neuroav" / "shipped" / "tiny.nav"
# no import of ours, nor of what the script must do without, can succeed
ALONE = (
    "import runpy, sys; "
    "sys.modules.update(dict.fromkeys(['neuroav', 'neuroav_export', 'torch', 'h5py'])); "
    "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
)
seen: set[type] = set()


def run(folder: Path, *arguments: str, timeout_s: float = 120) -> subprocess.CompletedProcess:
    """Run the script of a folder; whatever happens, none of its processes is left."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    # the folder comes first on the path, as with ``python run.py``
    alone = f"import sys; sys.path[0] = {str(folder)!r}; {ALONE}"
    process = subprocess.Popen(
        [sys.executable, "-c", alone, str(folder / "run.py"), *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=timeout_s)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def read_outputs(path: Path) -> Trace:
    with np.load(path, allow_pickle=False) as file:
        return Trace(0, {name: file[name] for name in file.files})


def digest_of(graph: ig.IntGraph, trace: Trace) -> str:
    digest = SpikeDigest(graph)
    digest.add(trace)
    return digest.hexdigest()


def assert_alive(graph: ig.IntGraph, outputs: dict[str, np.ndarray]) -> None:
    """Some neurons of every population speak, and no population is stuck at its largest."""
    for name, pop in graph.populations.items():
        assert outputs[name].any(), name
        if isinstance(pop, ig.SPIKING_CLASSES):
            assert not outputs[name].all(), name


def assert_equal_alone(deployment, inputs, folder: Path) -> str:
    """Write, run, compare every population; return what the script printed."""
    done = writer.write(deployment, folder, inputs=inputs)
    found = run(folder, "--out", str(folder / "out.npz"))
    assert found.returncode == 0, found.stdout + found.stderr
    graph, expected = deployment.integer, collect(fast.run(deployment, inputs))
    trace = read_outputs(folder / "out.npz")
    assert set(trace.outputs) == set(graph.order)
    for name in graph.order:
        assert trace.outputs[name].dtype == np.int32
        assert np.array_equal(trace.outputs[name], expected[name]), name
    digest = digest_of(graph, Trace(0, expected))
    assert digest == digest_of(graph, trace) == done.notes["spike_digest"]
    assert f"spike_digest {digest}\nequal to NeuroAV's\n" in found.stdout
    for pop in graph.populations.values():
        seen.update({type(pop), *map(type, pop.projections)})
    return found.stdout


@pytest.fixture(scope="module")
def networks():
    path = samples.ROOT / "tests" / "lava" / "networks.py"
    spec = importlib.util.spec_from_file_location("lava_networks", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The shipped network's folder, written by the command, and what the command printed."""
    path = tmp_path_factory.mktemp("tiny") / "made" / "lava"
    done = CliRunner().invoke(
        cli, ["convert", str(TINY), "--to", "lava", "--out", str(path), "--json"]
    )
    assert done.exit_code == 0, done.output
    return path, json.loads(done.stdout)


@pytest.mark.lava
def test_shipped_network_alone(tiny):
    path, found = tiny
    deployment = navfile.load(TINY)
    graph = deployment.integer
    inputs = {n: v[: writer.SAMPLES] for n, v in deployment.probe.inputs.items()}
    outputs = collect(fast.run(deployment, inputs))
    assert_alive(graph, outputs)
    shown = run(path)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    digest = digest_of(graph, Trace(0, outputs))
    assert f"spike_digest {digest}\nequal to NeuroAV's\n" in shown.stdout
    classes = outputs[graph.output][:, -1].argmax(axis=1)
    assert "predictions " + " ".join(repr(deployment.classes[k]) for k in classes) in shown.stdout
    assert (found["spike_digest"], found["samples"]) == (digest, len(classes))
    assert (found["nodes"], found["left_out"]) == (list(graph.order), {})


@pytest.mark.lava
def test_hand_made_networks_alone(networks, tmp_path):
    """Three networks side by side in one deployment: starting Lava is what takes the time."""
    populations, inputs = {}, {}
    for kind in ("every_kind", "attention", "fusion"):
        deployment, values = getattr(networks, kind)(3)
        names = {n: f"{kind} {n}" for n in deployment.integer.populations}
        part, counts = renamed(deployment, values, names)
        populations |= part.integer.populations
        inputs |= counts
    whole = make_deployment(populations, part.integer.output, 3)
    assert_alive(whole.integer, collect(fast.run(whole, inputs)))
    assert_equal_alone(whole, inputs, tmp_path / "made")


def late_network():
    """Loops with lags, a reset that subtracts, decays by neuron, a leaky readout, a transposed
    convolution, a currents from the host, new axes; with inputs."""
    rng = np.random.default_rng(5)
    steps, maps = 4, (2, 3, 4)

    def dense(source, shape, lag=0, span=60):
        return ig.IntDense(
            source, 0, rng.integers(-span // 2, span, shape) // 2 * 2, 8, "mixed", lag=lag
        )

    up = rng.integers(-20, 50, (3, 2, 2, 2)) // 2 * 2
    decays = rng.integers(500, 4000, maps)
    populations = {
        "eye": ig.IntInput((3, 2, 2), (), 3),
        "host": ig.IntHostCurrent((6,), (), 160),
        "wide": ig.IntLif(
            maps,
            (
                ig.IntConvTranspose2d("eye", 0, up, (1, 2), (0, 0), (0, 0), (1, 1), 1, 8, "mixed"),
                ig.IntIdentity("wide", 0, -30, lag=1),
            ),
            np.array(20),
            2,
            rng.integers(40, 90, maps),
            decays,
            4096 - decays,
            "subtract",
        ),
        "one": ig.IntLif(
            (6,),
            (ig.IntIdentity("host", 0, 1), dense("wide", (6, 24)), dense("two", (6, 5), 2)),
            np.array(0),
            0,
            np.array(150),
            3000,
            1000,
            "subtract",
        ),
        "two": ig.IntLif(
            (5,),
            (dense("one", (5, 6), span=200), dense("wide", (5, 24), 1)),
            np.array(0),
            0,
            np.array(90),
            4095,
            2048,
        ),
        "flat": ig.IntSum((24,), (ig.IntIdentity("wide", 0, 3),)),
        "pooled": ig.IntSum((2, 2, 2), (ig.IntPool("wide", 0, (2, 2), (1, 2), (0, 0), lag=1),)),
        "scores": ig.IntReadout(
            (3,),
            (dense("two", (3, 5)), dense("flat", (3, 24)), dense("pooled", (3, 8), 3)),
            np.array([5, -7, 0]),
            decay_u=1000,
            decay_v=300,
            input_shift=2,
        ),
    }
    graph = ig.IntGraph(populations, "scores", steps, 0.01, {})
    aligned = {
        name: replace(
            pop,
            projections=tuple(
                replace(p, delay=graph.aligned_delay(name, p.source, p.lag))
                for p in pop.projections
            ),
        )
        for name, pop in populations.items()
    }
    inputs = {
        "eye": rng.integers(0, 4, (3, steps, 3, 2, 2)),
        "host": np.repeat(rng.integers(0, 161, (3, 1, 6)), steps, axis=1),
    }
    return make_deployment(aligned, "scores", steps), inputs


ODD_NAMES = {
    "eye": "np",
    "host": "if",
    "wide": "w",
    "one": 'one"""\n    raise SystemExit(7)  # ',
    "two": "allow_pickle",
    "flat": "w!",
    "pooled": "2 W \N{GREEK SMALL LETTER MU}",
}


def renamed(deployment, inputs, names):
    """Return the same network with other names of populations."""
    graph = deployment.integer
    populations = {
        names.get(n, n): replace(
            pop,
            projections=tuple(
                replace(p, source=names.get(p.source, p.source)) for p in pop.projections
            ),
        )
        for n, pop in graph.populations.items()
    }
    made = make_deployment(populations, names.get(graph.output, graph.output), graph.steps)
    return made, {names[n]: v for n, v in inputs.items()}


@pytest.mark.lava
def test_loops_late_messages_and_odd_names_alone(tmp_path):
    deployment, inputs = renamed(*late_network(), ODD_NAMES)
    deployment = replace(deployment, classes=('"""', "\\", "\n"))
    assert any(deployment.integer.loops(group) for group in deployment.integer.groups)
    outputs = collect(fast.run(deployment, inputs))
    assert_alive(deployment.integer, outputs)
    shown = assert_equal_alone(deployment, inputs, tmp_path / "made")
    assert len(shown.splitlines()) == len(outputs) + 3


@pytest.mark.lava
def test_scmrl_alone(tmp_path):
    inputs = samples.poisson_inputs(6, 3, seed=3)
    deployment = compile_module(samples.awake_scmrl(steps=3, embed_dim=8), inputs)
    some = {n: v[4:] for n, v in inputs.items()}
    outputs = collect(fast.run(deployment, some))
    assert sum(not v.any() for v in outputs.values()) == 0
    assert_equal_alone(deployment, some, tmp_path / "made")


def test_the_scripts_covered_every_class():
    assert seen == {*ig.POPULATION_CLASSES, *ig.PROJECTION_CLASSES}
    assert {c.__name__ for c in seen} == set(writer.CARRIES)


CHECKS = """
import json, runpy, sys
from pathlib import Path
script = runpy.run_path(sys.argv[1], run_name="script")
for path in sys.argv[2:]:
    try:
        found = script["read_samples"](Path(path), 1)
        print({name: value.shape for name, value in found.items()})
    except SystemExit as error:
        print(str(error.code).partition(": ")[2].partition(": '")[0])
sys.argv[1:] = []
script["main"]()
"""


def test_samples_are_checked_and_needed(tmp_path):
    """A network without a probe: no samples lie in the folder."""
    counts = {"eye": np.ones((2, 4, 3, 2, 2), int), "host": np.zeros((2, 4, 6), np.uint8)}
    wrong = {
        "good": counts,
        "lacking": {"eye": counts["eye"]},
        "float": counts | {"eye": counts["eye"] * 1.0},
        "shape": counts | {"eye": counts["eye"][:, :3]},
        "none": {n: v[:0] for n, v in counts.items()},
        "large": counts | {"eye": counts["eye"] * 4},
        "low": counts | {"eye": counts["eye"] - 2},
        "uneven": counts | {"eye": counts["eye"][:1]},
        "pickled": {"eye": np.array([None]), "host": counts["host"]},
    }
    deployment, _ = late_network()
    done = writer.write(deployment, tmp_path / "made")
    assert (done.notes["samples"], done.notes["spike_digest"]) == (0, None)
    assert not (tmp_path / "made" / "samples.npz").exists()
    for name, arrays in wrong.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
    files = [str(tmp_path / f"{name}.npz") for name in (*wrong, "absent")]
    alone = f"import sys; sys.path[0] = {str(tmp_path / 'made')!r}\n{CHECKS}"
    found = subprocess.run(
        [sys.executable, "-c", alone, str(tmp_path / "made" / "run.py"), *files],
        capture_output=True,
        text=True,
        timeout=100,
    )
    shown = found.stdout.splitlines()
    assert shown == [
        "{'eye': (1, 4, 3, 2, 2), 'host': (1, 4, 6)}",
        "it holds ['eye'], needed is ['eye', 'host']",
        "eye is float64 (2, 4, 3, 2, 2), needed are integers (samples, 4, 3, 2, 2)",
        "eye is int64 (2, 3, 3, 2, 2), needed are integers (samples, 4, 3, 2, 2)",
        "eye is int64 (0, 4, 3, 2, 2), needed are integers (samples, 4, 3, 2, 2)",
        "eye counts 4..4, allowed is 0..3",
        "eye counts -1..-1, allowed is 0..3",
        "the inputs differ in their number of samples",
        "it cannot be read as .npz: Object arrays cannot be loaded when allow_pickle=False",
        "it cannot be read as .npz: [Errno 2] No such file or directory",
    ]
    assert found.returncode == 2
    assert "give --samples FILE.npz" in found.stderr


@pytest.mark.lava
def test_a_failing_process_ends_the_run_with_its_name(tiny, tmp_path):
    path = tmp_path / "copy"
    shutil.copytree(tiny[0], path)
    text = (path / "run.py").read_text(encoding="utf-8")
    narrow = text.replace("limit=8388607", "limit=1")
    assert narrow != text
    (path / "run.py").write_text(narrow, encoding="utf-8")
    found = run(path)
    assert found.returncode == 1
    assert "head: head: the readout accumulator reached" in found.stderr


def test_the_script_s_digest_is_ours(tiny):
    outputs = {"in": np.zeros((1, 2, 3), np.int32), "out": np.arange(6).reshape(1, 2, 3)}
    text = (tiny[0] / "run.py").read_text(encoding="utf-8")
    tree = ast.parse(text)
    functions = [n for n in tree.body if getattr(n, "name", "") == "spike_digest"]
    space = {"np": np, "hashlib": hashlib, "OUTPUT": "out", "POPULATIONS": outputs}
    exec(compile(ast.Module(functions, []), "run.py", "exec"), space)
    graph = make_deployment(
        {
            "in": ig.IntInput((3,), (), 1),
            "out": ig.IntReadout((3,), (ig.IntIdentity("in", 0, 1),), np.zeros(1, int)),
        },
        "out",
        2,
    ).integer
    assert space["spike_digest"](outputs) == digest_of(graph, Trace(0, outputs))


def test_refusals_leave_nothing(tmp_path):
    deployment, inputs = late_network()
    numeric = deployment.profile.numeric.model_copy(update={"input_shift": 5})
    other = replace(deployment, profile=deployment.profile.model_copy(update={"numeric": numeric}))
    with pytest.raises(UnsupportedNode, match="input_shift is 5, Lava has 6"):
        writer.write(other, tmp_path / "made", inputs=inputs)
    with pytest.raises(DataError, match="no sample"):
        writer.write(deployment, tmp_path / "made", inputs={n: v[:0] for n, v in inputs.items()})
    assert not list(tmp_path.iterdir())
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(ConfigError, match="no folder written by neuroav"):
        writer.write(deployment, tmp_path, inputs=inputs)
    assert [p.name for p in tmp_path.iterdir()] == ["kept.txt"]


def test_folder_imports_lava_and_what_it_brings_alone(tiny):
    path, _ = tiny
    allowed = sys.stdlib_module_names | {"numpy", "scipy", "lava", "compat", "processes"}
    files = sorted(p.relative_to(path).as_posix() for p in path.rglob("*.py"))
    assert files == ["compat.py", "processes/__init__.py", "run.py"]
    for file in files:
        for node in ast.walk(ast.parse((path / file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert {a.name.partition(".")[0] for a in node.names} <= allowed
            elif isinstance(node, ast.ImportFrom):
                assert node.module.partition(".")[0] in allowed
    assert "neuroav" not in (path / "compat.py").read_text(encoding="utf-8")


def test_own_processes_are_ours_word_for_word(tiny):
    path, _ = tiny
    made = ast.parse((path / "processes" / "__init__.py").read_text(encoding="utf-8"))
    copied = {n.name: ast.dump(n) for n in made.body if isinstance(n, ast.ClassDef)}
    found = implementing("neuroav.sim.lava.processes")
    assert {"Accumulator", "MatrixConv", "Recorder"} <= copied.keys() & found.keys()
    for process in copied.keys() & found.keys():
        module, names = found[process]
        file = samples.ROOT.joinpath(*module.split(".")).with_suffix(".py")
        ours = {n.name: n for n in ast.parse(file.read_text()).body if hasattr(n, "name")}
        assert len(names) == 2
        for name in names:
            assert copied[name] == ast.dump(ours[name])


def test_folder_holds_only_the_processes_in_use(tiny):
    path, _ = tiny
    text = (path / "processes" / "__init__.py").read_text(encoding="utf-8")
    assert "class MatrixConv" in text
    assert "class TimeSum" not in text
    assert "class SpatialAttention" not in text

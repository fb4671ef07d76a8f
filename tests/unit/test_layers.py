"""Import directions: who may import whom, and which third-party package belongs where.

A module must have its line in ``MODULES`` and a third-party package its line in ``THIRD_PARTY``.
Imports are read from the source, so those inside functions count as well.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (ROOT / "neuroav", ROOT / "export" / "neuroav_export")

# Layer -> layers it may import besides itself, from the ground up.
LAYERS: dict[str, tuple[str, ...]] = {
    "ground": (),
    "graph": ("ground",),
    "deployment": ("ground", "graph"),
    # What lies on which core: nothing here runs a network.
    "mapping": ("ground", "graph", "deployment"),
    "data": ("ground",),
    "learning": ("ground", "graph", "data"),
    # Executors know nothing of data sets, models and training.
    "executors": ("ground", "graph", "deployment"),
    "measures": ("ground", "graph", "deployment", "mapping", "executors"),
    # Where neurons lie depends on how often they send.
    "compiler": (
        "ground", "graph", "deployment", "mapping", "executors", "measures", "data", "learning",
    ),
    # What runs a deployment needs neither the compiler nor the models that made it.
    "runs": ("ground", "graph", "deployment", "mapping", "executors", "measures", "data"),
    "doctor": ("ground", "executors"),
    "demo": (
        "ground", "graph", "deployment", "mapping", "data", "learning", "executors", "measures",
        "compiler", "runs",
    ),
    # Many runs and files: uses everything that one run or file needs.
    "studies": (
        "ground", "graph", "deployment", "mapping", "data", "learning", "executors", "measures",
        "compiler", "runs",
    ),
    # What ``import neuroav`` offers, in the words of its callers.
    "interface": (
        "ground", "graph", "deployment", "mapping", "data", "executors", "measures", "compiler",
        "runs", "doctor",
    ),
    "command line": (
        "ground", "graph", "deployment", "mapping", "data", "learning", "executors", "measures",
        "compiler", "runs", "doctor", "demo", "studies",
    ),
}  # fmt: skip

MODULES: dict[str, str] = {
    "neuroav": "ground",
    "neuroav.errors": "ground",
    "neuroav.files": "ground",
    "neuroav.fixed": "ground",
    "neuroav.memory": "ground",
    "neuroav.graph": "graph",
    "neuroav.hardware": "graph",
    "neuroav.host": "graph",
    "neuroav.integer": "graph",
    "neuroav.neuron_nodes": "graph",
    "neuroav.nodes": "graph",
    "neuroav.profile_files": "graph",
    "neuroav.projections": "graph",
    "neuroav.quantization": "graph",
    "neuroav.registers": "graph",
    "neuroav.shapes": "graph",
    "neuroav.stages": "graph",
    "neuroav.synapses": "graph",
    "neuroav.bounds": "graph",
    "neuroav.placement": "graph",
    "neuroav.deployment": "deployment",
    "neuroav.digests": "deployment",
    "neuroav.navfile": "deployment",
    "neuroav.mapping": "mapping",
    "neuroav.mapping.arrange": "mapping",
    "neuroav.mapping.exact": "mapping",
    "neuroav.mapping.fit": "mapping",
    "neuroav.mapping.flows": "mapping",
    "neuroav.mapping.links": "mapping",
    "neuroav.mapping.mapper": "mapping",
    "neuroav.mapping.mesh": "mapping",
    "neuroav.mapping.needs": "mapping",
    "neuroav.mapping.pack": "mapping",
    "neuroav.mapping.remedies": "mapping",
    "neuroav.mapping.split": "mapping",
    "neuroav.mapping.starts": "mapping",
    "neuroav.mapping.swaps": "mapping",
    "neuroav.mapping.terms": "mapping",
    "neuroav.mapping.usage": "mapping",
    "neuroav.mapping.reach": "mapping",
    "neuroav.data": "data",
    "neuroav.data._espeak_worker": "data",
    "neuroav.data._make_manifest": "data",
    "neuroav.data.augment": "data",
    "neuroav.data.avdata": "data",
    "neuroav.data.avsplit": "data",
    "neuroav.data.binned": "data",
    "neuroav.data.entries": "data",
    "neuroav.data.formats": "data",
    "neuroav.data.info": "data",
    "neuroav.data.plans": "data",
    "neuroav.data.preparing": "data",
    "neuroav.data.protocols": "data",
    "neuroav.data.published": "data",
    "neuroav.data.stills": "data",
    "neuroav.data.describing": "data",
    "neuroav.data.exclusive": "data",
    "neuroav.data.shards": "data",
    "neuroav.data.workers": "data",
    "neuroav.data.spectrograms": "data",
    "neuroav.data.ledger": "data",
    "neuroav.data.checking": "data",
    "neuroav.data.published.trees": "data",
    "neuroav.data.published.cremad": "data",
    "neuroav.data.published.cremad_names": "data",
    "neuroav.data.published.urbansound8k": "data",
    "neuroav.data.published.mnistdvs_ntidigits": "data",
    "neuroav.data.published.mnistdvs_pairs": "data",
    "neuroav.data.gzsl.clean": "data",
    "neuroav.data.published.single": "data",
    "neuroav.data.published.heidelberg": "data",
    "neuroav.data.published.folder": "data",
    "neuroav.data.published.folder_convert": "data",
    "neuroav.data.published.folder_files": "data",
    "neuroav.data.published.folder_settings": "data",
    "neuroav.data.formats.events": "data",
    "neuroav.data.formats.records": "data",
    "neuroav.data.formats.aedat": "data",
    "neuroav.data.formats.aedat_header": "data",
    "neuroav.data.formats.aedat_records": "data",
    "neuroav.data.formats.aedat_packets": "data",
    "neuroav.data.formats.nmnist": "data",
    "neuroav.data.formats.slayer": "data",
    "neuroav.data.formats.arrays": "data",
    "neuroav.data.formats._wire": "data",
    "neuroav.data.formats._worker": "data",
    "neuroav.data.formats.guarded": "data",
    "neuroav.data.formats.hdf5": "data",
    "neuroav.data.formats.media": "data",
    "neuroav.data.formats.mat": "data",
    "neuroav.data.formats.ntidigits": "data",
    "neuroav.data.formats.picture": "data",
    "neuroav.data.formats.shd": "data",
    "neuroav.data.formats.sound": "data",
    "neuroav.data.formats.video": "data",
    "neuroav.data.avdigits": "data",
    "neuroav.data.cache": "data",
    "neuroav.data.catalogue": "data",
    "neuroav.data.cochlea": "data",
    "neuroav.data.dvs": "data",
    "neuroav.data.disturb": "data",
    "neuroav.data.frames": "data",
    "neuroav.data.manifest": "data",
    "neuroav.data.nmnistfsdd": "data",
    "neuroav.data.ragged": "data",
    "neuroav.data.speech": "data",
    "neuroav.data.tonic_view": "data",
    "neuroav.data.attributes": "data",
    "neuroav.data.avattributes": "data",
    "neuroav.data.gzsl": "data",
    "neuroav.data.gzsl.benchmark": "data",
    "neuroav.data.gzsl.classlists": "data",
    "neuroav.data.gzsl.embeddings": "data",
    "neuroav.data.gzsl.features": "data",
    "neuroav.data.gzsl.pickled": "data",
    "neuroav.data.zeroshot": "data",
    "neuroav.data.zeroshot_scores": "data",
    "neuroav.models": "learning",
    "neuroav.models.add": "learning",
    "neuroav.models.scmrl": "learning",
    "neuroav.models.segments": "learning",
    "neuroav.models._fused_loops": "learning",
    "neuroav.models.attention": "learning",
    "neuroav.models.fused": "learning",
    "neuroav.models.rivals": "learning",
    "neuroav.models.stems": "learning",
    "neuroav.training.losses": "learning",
    "neuroav.models.layers": "learning",
    "neuroav.models.memory": "learning",
    "neuroav.models.parameters": "learning",
    "neuroav.models.straight": "learning",
    "neuroav.models.quantized": "learning",
    "neuroav.models.registry": "learning",
    "neuroav.models.released": "learning",
    "neuroav.models.tracing": "learning",
    "neuroav.training": "learning",
    "neuroav.training.batches": "learning",
    "neuroav.training.checkpoint": "learning",
    "neuroav.training.config": "learning",
    "neuroav.training.evaluate": "learning",
    "neuroav.training.loop": "learning",
    "neuroav.training.distributed": "learning",
    "neuroav.training.globalnorm": "learning",
    "neuroav.training.qat": "learning",
    "neuroav.training.rates": "learning",
    "neuroav.models.zeroshot": "learning",
    "neuroav.models.zeroshot.avca": "learning",
    "neuroav.models.zeroshot.chip": "learning",
    "neuroav.models.zeroshot.fusion": "learning",
    "neuroav.models.zeroshot.knowledge": "learning",
    "neuroav.models.zeroshot.parts": "learning",
    "neuroav.models.zeroshot.registry": "learning",
    "neuroav.models.zeroshot.search": "learning",
    "neuroav.models.zeroshot.spiking": "learning",
    "neuroav.models.zeroshot.stft": "learning",
    "neuroav.training.zeroshot": "learning",
    "neuroav.training.zeroshot.batches": "learning",
    "neuroav.training.zeroshot.evaluate": "learning",
    "neuroav.training.zeroshot.loop": "learning",
    "neuroav.training.zeroshot.losses": "learning",
    "neuroav.training.zeroshot.operations": "learning",
    "neuroav.sim": "executors",
    "neuroav.sim._loops": "executors",
    "neuroav.sim.currents": "executors",
    "neuroav.sim.fast": "executors",
    "neuroav.sim.populations": "executors",
    "neuroav.sim.attentions": "executors",
    "neuroav.sim.loops": "executors",
    "neuroav.sim.stepping": "executors",
    "neuroav.sim.lava": "executors",
    "neuroav.sim.lava.bounds": "executors",
    "neuroav.sim.lava.build": "executors",
    "neuroav.sim.lava.channels": "executors",
    "neuroav.sim.lava.checked": "executors",
    "neuroav.sim.lava.client": "executors",
    "neuroav.sim.lava.compiling": "executors",
    "neuroav.sim.lava.copies": "executors",
    "neuroav.sim.lava.engine": "executors",
    "neuroav.sim.lava.guard": "executors",
    "neuroav.sim.lava.inline": "executors",
    "neuroav.sim.lava.jobs": "executors",
    "neuroav.sim.lava.layout": "executors",
    "neuroav.sim.lava.processes": "executors",
    "neuroav.sim.lava.processes.accumulator": "executors",
    "neuroav.sim.lava.processes.conv": "executors",
    "neuroav.sim.lava.processes.attention": "executors",
    "neuroav.sim.lava.processes.delay": "executors",
    "neuroav.sim.lava.processes.time_sum": "executors",
    "neuroav.sim.lava.processes.winner": "executors",
    "neuroav.sim.lava.processes.gate": "executors",
    "neuroav.sim.lava.processes.recorder": "executors",
    "neuroav.sim.lava.sparse": "executors",
    "neuroav.sim.lava.shim": "executors",
    "neuroav.sim.lava.stock": "executors",
    "neuroav.sim.lava.worker": "executors",
    "neuroav.sim.real": "executors",
    "neuroav.sim.sanafe": "measures",
    "neuroav.sim.sanafe.arch": "executors",
    "neuroav.sim.sanafe.client": "executors",
    "neuroav.sim.sanafe.driver": "executors",
    "neuroav.sim.sanafe.folder": "executors",
    "neuroav.sim.sanafe.network": "executors",
    "neuroav.sim.sanafe.parity": "measures",
    "neuroav.sim.sanafe.unroll": "executors",
    "neuroav.sim.reference": "executors",
    "neuroav.sim.trace": "executors",
    "neuroav.costs": "measures",
    "neuroav.costs.baselines": "measures",
    "neuroav.costs.breakeven": "measures",
    "neuroav.costs.coefficients": "measures",
    "neuroav.costs.conventional": "measures",
    "neuroav.counts": "measures",
    "neuroav.neurobench": "measures",
    "neuroav.costs.energy": "measures",
    "neuroav.costs.calibration": "measures",
    "neuroav.costs.measured": "measures",
    "neuroav.costs.timing": "measures",
    "neuroav.loads": "measures",
    "neuroav.recordfile": "measures",
    "neuroav_export": "compiler",
    "neuroav_export.linting": "compiler",
    "neuroav_export.zeroshot": "compiler",
    "neuroav_export.linting.collect": "compiler",
    "neuroav_export.linting.descend": "compiler",
    "neuroav_export.linting.findings": "compiler",
    "neuroav_export.linting.network": "compiler",
    "neuroav_export.linting.recover": "compiler",
    "neuroav_export.linting.rules": "compiler",
    "neuroav_export.linting.watch": "compiler",
    "neuroav_export.passes": "compiler",
    "neuroav_export.passes.counting": "compiler",
    "neuroav_export.passes.fold_norm": "compiler",
    "neuroav_export.passes.host_input": "compiler",
    "neuroav_export.passes.limit_range": "compiler",
    "neuroav_export.passes.prove_range": "compiler",
    "neuroav_export.passes.lower": "compiler",
    "neuroav_export.passes.neurons": "compiler",
    "neuroav_export.passes.quantize": "compiler",
    "neuroav_export.passes.relays": "compiler",
    "neuroav_export.passes.synaptic": "compiler",
    "neuroav_export.passes.values": "compiler",
    "neuroav_export.passes.wide": "compiler",
    "neuroav_export.pipeline": "compiler",
    "neuroav_export.mixed": "compiler",
    "neuroav_export.prepare": "compiler",
    "neuroav_export.prepared": "compiler",
    "neuroav_export.run": "compiler",
    "neuroav_export.tracing": "compiler",
    "neuroav_export.tracing.kinds": "compiler",
    "neuroav_export.linting.running": "compiler",
    "neuroav_export.trace": "compiler",
    "neuroav_export.tracing.axes": "compiler",
    "neuroav_export.tracing.as_float64": "compiler",
    "neuroav_export.tracing.graph": "compiler",
    "neuroav_export.tracing.layout": "compiler",
    "neuroav_export.tracing.modules": "compiler",
    "neuroav_export.tracing.norse": "compiler",
    "neuroav_export.tracing.op": "compiler",
    "neuroav_export.tracing.ops": "compiler",
    "neuroav_export.tracing.steps": "compiler",
    "neuroav_export.tracing.sums": "compiler",
    "neuroav_export.tracing.values": "compiler",
    "neuroav_export.unfolded": "compiler",
    "neuroav_export.readers": "compiler",
    "neuroav_export.readers.base": "compiler",
    "neuroav_export.readers.hdf5": "compiler",
    "neuroav_export.readers.netx": "compiler",
    "neuroav_export.readers.netx_layers": "compiler",
    "neuroav_export.readers.netx_twin": "compiler",
    "neuroav_export.readers.nir": "compiler",
    "neuroav_export.readers.nir_build": "compiler",
    "neuroav_export.readers.nir_file": "compiler",
    "neuroav_export.readers.nir_graph": "compiler",
    "neuroav_export.readers.nir_nodes": "compiler",
    "neuroav_export.readers.nir_shapes": "compiler",
    "neuroav_export.writers": "compiler",
    "neuroav_export.writers.base": "compiler",
    "neuroav_export.writers.netx": "compiler",
    "neuroav_export.writers.nir": "compiler",
    "neuroav_export.writers.nir_integers": "compiler",
    "neuroav_export.writers.onnx": "compiler",
    "neuroav_export.writers.onnx_build": "compiler",
    "neuroav_export.writers.onnx_integer": "compiler",
    "neuroav_export.writers.onnx_real": "compiler",
    "neuroav_export.writers.onnx_unrolled": "compiler",
    "neuroav_export.writers.sanafe": "compiler",
    "neuroav_export.writers.lava": "compiler",
    "neuroav_export.writers.lava_blocks": "compiler",
    "neuroav_export.writers.lava_neuron": "compiler",
    "neuroav_export.writers.extract": "compiler",
    "neuroav.report": "runs",
    "neuroav.report.build": "runs",
    "neuroav.report.calibration": "runs",
    "neuroav.report.chip": "runs",
    "neuroav.report.comparisons": "runs",
    "neuroav.report.curves": "runs",
    "neuroav.report.on_chip": "runs",
    "neuroav.report.process_graph": "runs",
    "neuroav.report.figures": "runs",
    "neuroav.report.format": "runs",
    "neuroav.report.measure": "runs",
    "neuroav.report.render": "runs",
    "neuroav.report.sample": "runs",
    "neuroav.report.tables": "runs",
    "neuroav.simulate": "runs",
    "neuroav.verify": "runs",
    "neuroav.carried": "runs",
    "neuroav.certificate": "runs",
    "neuroav.explain": "runs",
    "neuroav.explain.against": "runs",
    "neuroav.explain.fake": "runs",
    "neuroav.explain.layers": "runs",
    "neuroav.explain.recompute": "runs",
    "neuroav.explain.rederive": "runs",
    "neuroav.explain.stages": "runs",
    "neuroav.explain.swaps": "runs",
    "neuroav.explain.twin": "runs",
    "neuroav.studies": "studies",
    "neuroav.studies.chunks": "studies",
    "neuroav.studies.cluster": "studies",
    "neuroav.studies.finished": "studies",
    "neuroav.studies.partial": "studies",
    "neuroav.studies.remote": "studies",
    "neuroav.studies.workers": "studies",
    "neuroav.studies.subjects": "studies",
    "neuroav.studies.conditions": "studies",
    "neuroav.studies.grid": "studies",
    "neuroav.studies.onerun": "studies",
    "neuroav.studies.parallel": "studies",
    "neuroav.studies.plots": "studies",
    "neuroav.studies.robustness": "studies",
    "neuroav.studies.robustness_plot": "studies",
    "neuroav.studies.summary": "studies",
    "neuroav.studies.sweep": "studies",
    "neuroav.studies.zeroshot": "studies",
    "neuroav.studies.zeroshot_plot": "studies",
    "neuroav.studies.sweep_plot": "studies",
    "neuroav.studies.todo": "studies",
    "neuroav.doctor": "doctor",
    "neuroav.api": "interface",
    "neuroav.api.foreign": "interface",
    "neuroav.api.inputs": "interface",
    "neuroav.api.make": "interface",
    "neuroav.api.network": "interface",
    "neuroav.api.results": "interface",
    "neuroav.demo": "demo",
    "neuroav.__main__": "command line",
    "neuroav.cli": "command line",
    "neuroav.cli.ablate": "command line",
    "neuroav.cli.calibrate": "command line",
    "neuroav.cli.common": "command line",
    "neuroav.cli.convert": "command line",
    "neuroav.cli.data": "command line",
    "neuroav.cli.demo": "command line",
    "neuroav.cli.doctor": "command line",
    "neuroav.cli.explained": "command line",
    "neuroav.cli.export": "command line",
    "neuroav.cli.group": "command line",
    "neuroav.cli.import_": "command line",
    "neuroav.cli.lint": "command line",
    "neuroav.cli.profiles": "command line",
    "neuroav.cli.progress": "command line",
    "neuroav.cli.report": "command line",
    "neuroav.cli.robustness": "command line",
    "neuroav.cli.simulate": "command line",
    "neuroav.cli.sweep": "command line",
    "neuroav.streaming": "runs",
    "neuroav.streaming.cutting": "runs",
    "neuroav.streaming.devices": "runs",
    "neuroav.streaming.feed": "runs",
    "neuroav.streaming.hearing": "runs",
    "neuroav.streaming.opening": "runs",
    "neuroav.streaming.records": "runs",
    "neuroav.streaming.sensing": "runs",
    "neuroav.streaming.session": "runs",
    "neuroav.streaming.sources": "runs",
    "neuroav.streaming.stepper": "runs",
    "neuroav.cli.stream": "command line",
    "neuroav.cli.train": "command line",
}

# What a module names without importing it: ``neuroav`` loads these when they are asked for, which
# tests/unit/test_light_imports.py and tests/api/test_api.py watch.
WHEN_ASKED = {
    "neuroav": (
        "neuroav.api.foreign",
        "neuroav.api.make",
        "neuroav.api.network",
        "neuroav.api.results",
    ),
}

# Package -> modules (and what lies below them) that may import it; those in ANYWHERE need none.
THIRD_PARTY: dict[str, tuple[str, ...]] = {
    "click": ("neuroav.cli",),
    "rich": ("neuroav.cli",),
    "platformdirs": ("neuroav.cli.common",),
    "pydantic": (
        "neuroav.costs.coefficients",
        "neuroav.hardware",
        "neuroav.costs.measured",
        "neuroav.training.config",
    ),
    "pydantic_core": ("neuroav.hardware",),
    "tomli": (
        "neuroav.costs.coefficients",
        "neuroav.data.published.folder_settings",
        "neuroav.profile_files",
        "neuroav.training.config",
    ),
    "tomli_w": ("neuroav.hardware", "neuroav.training.config"),
    "jinja2": ("neuroav.report.render", "neuroav_export.writers.lava"),
    "markupsafe": ("neuroav.report.render",),
    "h5py": (
        "neuroav.data.formats",
        "neuroav.data.gzsl.features",
        "neuroav.navfile",
        "neuroav.recordfile",
        "neuroav.data.cache",
        "neuroav_export.readers.hdf5",
        "neuroav_export.readers.nir_file",
        "neuroav_export.writers.netx",
    ),
    "torch": (
        "neuroav.models",
        "neuroav.training",
        "neuroav.sim.attentions",
        "neuroav.sim.currents",
        "neuroav.sim.fast",
        "neuroav.sim.loops",
        "neuroav.sim.populations",
        "neuroav.sim.real",
        "neuroav.sim.stepping",  # in types only
        "neuroav.studies.onerun",
        "neuroav.studies.zeroshot",
        "neuroav.api",  # in types only
        "neuroav_export",
    ),
    "norse": ("neuroav.models", "neuroav_export.tracing.norse"),
    "numba": ("neuroav.models._fused_loops", "neuroav.sim._loops"),
    "torchmetrics": (
        "neuroav.training.evaluate",
        "neuroav.training.zeroshot.evaluate",
    ),
    "safetensors": ("neuroav.training.checkpoint",),
    "lava": ("neuroav.sim.lava", "neuroav_export.writers.lava_neuron"),
    "nir": ("neuroav_export.writers.nir",),
    "onnx": ("neuroav_export.writers.onnx_build",),
    "sanafe": ("neuroav.sim.sanafe.driver",),
    "tonic": ("neuroav.data",),
    "av": ("neuroav.data.formats.media", "neuroav.data.formats.sound"),
    "PIL": ("neuroav.data.formats.picture", "neuroav.data.spectrograms"),
    "sounddevice": ("neuroav.streaming.devices",),
    "dv_processing": ("neuroav.streaming.devices",),
    "ray": ("neuroav.studies.cluster",),
    "scipy": (
        "neuroav.data.cochlea",
        "neuroav.data.formats.mat",
        "neuroav.data.formats.sound",
        "neuroav.mapping",
        "neuroav.sim.lava.build",
        "neuroav.sim.lava.sparse",
    ),
    "pymetis": ("neuroav.mapping.starts",),
    "sklearn": ("neuroav.data.avdigits",),
    "espeakng_loader": ("neuroav.data._espeak_worker",),
    "optuna": ("neuroav.studies.todo",),
    "matplotlib": (
        "neuroav.studies.plots",
        "neuroav.studies.robustness_plot",
        "neuroav.studies.sweep_plot",
        "neuroav.studies.zeroshot_plot",
    ),
}
ANYWHERE = {"numpy", "tomllib"}  # tomllib is in the standard library from 3.11 on


def sources() -> dict[str, Path]:
    """Return module name -> file of everything that is shipped."""
    found = {}
    for package in PACKAGES:
        for path in package.rglob("*.py"):
            name = ".".join(path.relative_to(package.parent).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def imports(source: str) -> Iterator[tuple[str, int]]:
    """Yield (imported module, line) of every import statement and ``import_module("...")`` call.

    ``from a import b`` gives ``a.b`` where that is a module of ours, ``a`` otherwise.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are written out in full"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield (inner if inner in MODULES else node.module), node.lineno
        elif isinstance(node, ast.Call) and node.args:
            function = ast.unparse(node.func).rpartition(".")[2]
            first = node.args[0]
            if function == "import_module" and isinstance(first, ast.Constant):
                yield first.value, node.lineno


def violations(module: str, source: str) -> list[str]:
    """Return one line per import that ``module`` may not make."""
    layer, found = MODULES[module], []
    for name, line in imports(source):
        package, where = name.partition(".")[0], f"{module}:{line} imports {name}"
        if package in ("neuroav", "neuroav_export"):
            if name not in MODULES:
                found.append(f"{where}, which is no module")
            elif name in WHEN_ASKED.get(module, ()):
                continue
            elif MODULES[name] not in (layer, *LAYERS[layer]):
                found.append(f"{where}: {layer} may not import {MODULES[name]}")
        elif package not in sys.stdlib_module_names | ANYWHERE:
            allowed = THIRD_PARTY.get(package, ())
            if not any(module == a or module.startswith(f"{a}.") for a in allowed):
                found.append(f"{where}: allowed in {', '.join(allowed) or 'no module'}")
    return found


def test_every_module_has_its_line_in_the_table():
    missing, stale = set(sources()) - set(MODULES), set(MODULES) - set(sources())
    assert not missing, f"add to MODULES in {__file__}: {sorted(missing)}"
    assert not stale, f"remove from MODULES in {__file__}: {sorted(stale)}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_module_imports_only_what_its_layer_may(module):
    assert violations(module, sources()[module].read_text(encoding="utf-8")) == []


def test_layers_have_no_circle():
    done: set[str] = set()
    for layer, below in LAYERS.items():
        assert set(below) <= done, f"{layer} imports a layer listed after it"
        done.add(layer)
    assert set(MODULES.values()) == done


def test_every_third_party_line_is_used():
    used: dict[str, set[str]] = {}
    for module, path in sources().items():
        for name, _ in imports(path.read_text(encoding="utf-8")):
            used.setdefault(name.partition(".")[0], set()).add(module)
    for package, allowed in THIRD_PARTY.items():
        for prefix in allowed:
            assert any(m == prefix or m.startswith(f"{prefix}.") for m in used.get(package, ())), (
                f"remove {prefix} from {package}'s line in THIRD_PARTY"
            )


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("neuroav.graph", "def f():\n    from neuroav import deployment", "graph:2 imports"),
        ("neuroav.sim.fast", "import neuroav.data.frames", "executors may not import data"),
        ("neuroav.data", "from neuroav.models import add", "data may not import learning"),
        ("neuroav.graph", "import torch.nn", "imports torch.nn: allowed in "),
        ("neuroav.sim.real", "from lava.proc import lif", "allowed in neuroav.sim.lava"),
        ("neuroav.graph", "import pandas", "allowed in no module"),
        ("neuroav.graph", "import neuroav.nothing", "which is no module"),
        (
            "neuroav.errors",
            "from importlib import import_module\nimport_module('neuroav.sim.fast')",
            "ground may not import executors",
        ),
    ],
)
def test_a_forbidden_import_is_found(module, source, message):
    (found,) = violations(module, source)
    assert message in found


def test_a_relative_import_is_refused():
    with pytest.raises(AssertionError, match="line 1: imports are written out in full"):
        list(imports("from . import graph"))

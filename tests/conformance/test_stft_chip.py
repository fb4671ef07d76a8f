"""A trained stft-chip on every executor, and classes added to its deployment."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import zero_shot_data as small

from neuroav import navfile
from neuroav.deployment import Deployment
from neuroav.errors import DataError
from neuroav.integer import IntReadout, IntWinner
from neuroav.sim import fast, lava, real, reference
from neuroav.training import evaluate as evaluation
from neuroav.training import loop
from neuroav_export import run as exporting
from neuroav_export.zeroshot import add_classes, chip_network, project_text

SETTINGS = {"train.epochs": "8", "zsl.batches": "30", "zsl.hidden_dim": "48", "zsl.embed_dim": "24"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(model, data, deployment) of a small run."""
    folder, data = tmp_path_factory.mktemp("chip"), small.make(per_class=16)
    with pytest.MonkeyPatch.context() as patch:
        for module in (loop, evaluation):
            patch.setattr(module, "load_data", lambda *_, **__: data)
        loop.train(small.config("stft-chip", **SETTINGS), folder / "run", cache_dir=folder)
        exporting.export_run(folder / "run", out=folder / "chip.nav", cache_dir=folder)
        model, _, _ = evaluation.load_run(folder / "run", cache_dir=folder)
    return model, data, navfile.load(folder / "chip.nav")


def test_data(data, count: int) -> dict[str, np.ndarray]:
    frames = data.split("test").frames(np.arange(count))
    return {"audio": frames.audio, "visual": frames.visual}


test_data.__test__ = False  # type: ignore[attr-defined]


def outputs(executor, deployment: Deployment, inputs) -> dict[str, np.ndarray]:
    parts = [t.outputs for t in executor.run(deployment, inputs)]
    return {n: np.concatenate([p[n] for p in parts]) for n in parts[0]}


def test_every_executor_gives_the_same(trained):
    _, data, deployment = trained
    inputs = test_data(data, 64)
    expected = outputs(reference, deployment, inputs)
    graph = deployment.integer
    for name in graph.order:
        if name in graph.inputs or name == graph.output:
            continue
        rate = float((expected[name] != 0).mean())
        assert rate > 0.01, name  # every population speaks
        if graph.populations[name].__class__.__name__ == "IntLif":
            assert rate < 0.9, name
    for executor, count in ((fast, 64), (lava, 8)):
        found = outputs(executor, deployment, {n: v[:count] for n, v in inputs.items()})
        for name in graph.order:
            assert np.array_equal(found[name], expected[name][:count]), name


def test_the_winner_is_the_class_with_the_largest_score(trained):
    _, data, deployment = trained
    found = outputs(fast, deployment, test_data(data, 100))
    graph = deployment.integer
    (winner,) = [n for n in graph.order if isinstance(graph.populations[n], IntWinner)]
    last = found[winner][:, -1]
    assert (last.sum(axis=1) == 1).all()
    assert (last.argmax(axis=1) == found[graph.output][:, -1].argmax(axis=1)).all()
    assert len(np.unique(last.argmax(axis=1))) > 3


def test_deployed_answers_are_those_of_the_network(trained):
    model, data, deployment = trained
    inputs = test_data(data, 128)
    scores = outputs(fast, deployment, inputs)[deployment.integer.output][:, -1]
    twin = np.concatenate(
        [
            t.outputs[deployment.real.output].reshape(t.samples, -1)
            for t in real.run(deployment.real, inputs)
        ]
    )
    network = chip_network(model, data)
    with torch.no_grad():
        tensors = [torch.from_numpy(np.moveaxis(np.array(v), 1, 0)) for v in inputs.values()]
        answers = network(*tensors).numpy()
    assert np.allclose(answers, twin, atol=1e-3)
    assert (scores.argmax(1) == twin.argmax(1)).mean() > 0.9
    assert deployment.host_macs == 2 * 48 * (small.AUDIO + small.VISUAL)
    assert deployment.static == {"audio", "visual"}
    assert deployment.classes == tuple(data.classes[c] for c in data.sought)


def test_a_class_is_added_as_a_row(trained):
    model, data, deployment = trained
    text = data.text[[8]]  # in no stage: neither trained on nor deployed
    grown = add_classes(deployment, ["newcomer"], project_text(model, text))
    inputs = test_data(data, 16)
    before, after = (outputs(fast, d, inputs) for d in (deployment, grown))
    name = deployment.integer.output
    assert np.array_equal(after[name][:, :, :-1], before[name])
    assert after[name].shape[-1] == len(deployment.classes) + 1
    assert np.array_equal(outputs(reference, grown, inputs)[name], after[name])
    assert isinstance(grown.integer.populations[name], IntReadout)
    assert grown.neurons == deployment.neurons + 2  # the score and its winner
    assert deployment.placement is not None  # with no place for them
    assert grown.placement is None
    # what is left of the network is untouched
    for other in set(before) - {name, f"{name}.winner"}:
        assert np.array_equal(before[other], after[other]), other


def test_an_added_row_is_the_row_the_compiler_makes(trained):
    """Class 0's text again, unseen: the same weights, and its bias but for the seen-class bias."""
    model, data, deployment = trained
    seen_class = int(data.sought[6])  # unseen: no bias of the seen classes in its row
    grown = add_classes(deployment, ["again"], project_text(model, data.text[[seen_class]]))
    readout = grown.integer.populations[grown.integer.output]
    weight = readout.projections[0].weight
    assert np.abs(weight[-1] - weight[6]).max() <= 2  # one step of the grid
    assert abs(int(readout.bias[-1]) - int(readout.bias[6])) <= 2
    assert np.abs(weight[6]).max() > 0


def test_a_grown_deployment_is_saved_and_read_back(trained, tmp_path):
    model, data, deployment = trained
    grown = add_classes(deployment, ["newcomer"], project_text(model, data.text[[8]]))
    saved = navfile.save(grown, tmp_path / "grown.nav")
    read = navfile.load(tmp_path / "grown.nav")
    assert read.classes[-1] == "newcomer"
    assert read.content_hash == saved.content_hash != deployment.content_hash


def test_bad_classes_are_refused(trained):
    model, data, deployment = trained
    rows = project_text(model, data.text[[8]])
    with pytest.raises(DataError, match="exist already"):
        add_classes(deployment, [deployment.classes[0]], rows)
    with pytest.raises(DataError, match="named twice"):
        add_classes(deployment, ["a", "a"], np.repeat(rows, 2, axis=0))
    with pytest.raises(DataError, match=r"needs \(1, 8\)"):
        add_classes(deployment, ["a"], rows[:, :-1])
    with pytest.raises(DataError, match=r"needs \(classes, 6\)"):
        project_text(model, data.text[8])

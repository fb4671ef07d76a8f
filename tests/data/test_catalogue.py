"""Data sets by name: errors with near matches, facts, light import, and what the data is worth."""

import json
import subprocess
import sys

import numpy as np
import pytest

from neuroav import data
from neuroav.data import avdigits, speech
from neuroav.errors import DataError


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "av-digit"}, "unknown data set 'av-digit'.*did you mean 'av-digits'"),
        ({"preset": "hart"}, "unknown preset of av-digits 'hart'.*did you mean 'hard'"),
    ],
)
def test_unknown_names_are_refused_with_near_matches(tmp_path, change, said):
    wanted = {"name": "av-digits", "cache_dir": tmp_path, "limit": 40} | change
    for call in (data.prepare, data.load, data.describe):
        with pytest.raises(DataError, match=said):
            call(wanted["name"], **{k: v for k, v in wanted.items() if k != "name"})
    assert list(tmp_path.iterdir()) == []


def test_unknown_split_is_refused(small):
    with pytest.raises(DataError, match=r"unknown split 'tests'.*did you mean 'test'"):
        small.split("tests")


def test_catalogue_agrees_with_the_generator():
    info = data.dataset_info("av-digits")
    assert info.presets == tuple(avdigits.PRESETS)
    assert info.classes == speech.WORDS
    assert data.DATASETS["av-digits"] is info
    assert len(info.limits) > 2


def test_a_prepared_file_is_kept_and_progress_reaches_its_end(tmp_path):
    seen = []
    path = data.prepare(
        "av-digits", cache_dir=tmp_path, limit=40, progress=lambda *step: seen.append(step)
    )
    assert [stage for stage, done, total in seen if done == total] == [
        *("speech", "audio", "visual", "write")
    ]
    before = path.stat().st_mtime_ns
    again = data.prepare("av-digits", cache_dir=tmp_path, limit=40)
    assert (again, path.stat().st_mtime_ns) == (path, before)
    assert path.parent == tmp_path / "av-digits"
    assert sorted(tmp_path.rglob("*.*")) == [path]


def test_every_parameter_changes_the_file_name(tmp_path, monkeypatch):
    def name(**change):
        return data.cache_path("av-digits", cache_dir=tmp_path, **change).name

    names = [name(), name(data_seed=1), name(preset="hard"), name(limit=99)]
    monkeypatch.setattr(avdigits, "GENERATOR_VERSION", 999)
    names.append(name())
    monkeypatch.undo()
    monkeypatch.setattr(avdigits.cochlea, "GAIN", 0.5)
    names.append(name())
    assert len(set(names)) == 6


def test_describe_states_facts_as_json_and_prepares_nothing(small, prepared, cache_dir, tmp_path):
    facts = json.loads(json.dumps(data.describe("av-digits", cache_dir=cache_dir, limit=200)))
    assert facts["content_hash"] == small.content_hash
    assert facts["bytes"] == prepared.stat().st_size > 100_000
    assert {name: part["pairs"] for name, part in facts["splits"].items()} == {
        "train": 128,
        "val": 22,
        "test": 50,
    }
    assert sum(facts["splits"]["test"]["by_class"].values()) == 50
    assert facts["audio_events_median"] > 200
    assert facts["visual_events_median"] > 1000
    absent = data.describe("av-digits", cache_dir=tmp_path)
    assert (absent["prepared"], "splits" in absent) == (False, False)
    assert list(tmp_path.iterdir()) == []


def test_raw_events_tell_what_a_pair_was_made_of(small):
    split = small.split("test")
    raw = split.raw_events(4)
    assert raw["label"] == split.labels[4]
    assert raw["class"] == small.classes[raw["label"]]
    assert raw["source"]["picture"].shape == (8, 8)
    assert raw["source"]["voice"].decode().count("+") == 1
    assert len(raw["audio"]["time"]) == len(raw["audio"]["channel"]) > 50
    assert len(raw["visual"]["x"]) == split.recordings.visual.counts[split.rows[4]] > 500
    with pytest.raises(DataError, match="allowed are"):
        split.raw_events(50)


def test_importing_the_package_loads_nothing_heavy():
    script = (
        "import sys, neuroav.data; "
        "print(*[m for m in ('torch', 'sklearn', 'scipy', 'tonic', 'espeakng_loader', "
        "'multiprocessing') if m in sys.modules], 'numpy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True"]


def test_generation_leaves_multiprocessing_and_tonic_unused(tmp_path):
    """Lava chooses how processes start, and only the first to use them may."""
    script = (
        "import sys; from pathlib import Path; from neuroav import data\n"
        f"d = data.load('av-digits', cache_dir=Path({str(tmp_path)!r}), limit=40)\n"
        "mp = sys.modules.get('multiprocessing')\n"
        "print(len(d.split('test')), 'tonic' in sys.modules, 'torch' in sys.modules,\n"
        "      mp and mp.get_start_method(allow_none=True))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["10", "False", "False", "None"]


def test_both_senses_together_beat_each_alone(cache_dir):
    """A linear reading of coarse counts, 600 pairs: neither sense suffices, fusion gains."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    loaded = data.load("av-digits", cache_dir=cache_dir, limit=600)
    train, test = loaded.split("train").frames(), loaded.split("test").frames()

    def accuracy(audio: bool, visual: bool, shuffled: bool = False) -> float:
        def features(frames, mix):
            heard = frames.audio.reshape(len(frames), 8, 32, 2, 8).sum((3, 4))
            heard = heard[np.random.default_rng(0).permutation(len(frames))] if mix else heard
            seen = frames.visual.reshape(len(frames), 4, 2, 2, 8, 2, 8, 2).sum((2, 5, 7))
            parts = [part for part, use in ((heard, audio), (seen, visual)) if use]
            return np.concatenate([part.reshape(len(frames), -1) for part in parts], axis=1)

        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200))
        model.fit(features(train, False), train.labels)
        return model.score(features(test, shuffled), test.labels)

    heard, seen, both = accuracy(True, False), accuracy(False, True), accuracy(True, True)
    assert 0.4 < heard < 0.8
    assert 0.5 < seen < 0.85
    assert both > max(heard, seen) + 0.05
    assert accuracy(True, True, shuffled=True) < both - 0.15

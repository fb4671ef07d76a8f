"""Audio-visual generalised zero-shot benchmarks: UCF, VGGSound and ActivityNet as AVCA split them.

``load_benchmark`` gives ``ZeroShotData``. Importing needs numpy and h5py alone.
"""

from neuroav.data.gzsl.benchmark import (
    DEFAULT_STEPS,
    PRESETS,
    find_class_lists,
    load_benchmark,
)
from neuroav.data.gzsl.classlists import (
    BENCHMARKS,
    BenchmarkSet,
    ClassLists,
    read_class_lists,
    stage_counts,
)

__all__ = [
    "BENCHMARKS",
    "DEFAULT_STEPS",
    "PRESETS",
    "BenchmarkSet",
    "ClassLists",
    "find_class_lists",
    "load_benchmark",
    "read_class_lists",
    "stage_counts",
]

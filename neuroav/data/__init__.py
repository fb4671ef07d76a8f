"""Audio-visual event data: generating, caching, and laying out as network input.

``load`` gives an ``AVData`` whose splits deliver ``Frames``; see ``neuroav.data.frames`` for what
each axis means. Importing this package needs numpy and h5py alone; scikit-learn, scipy, espeak-ng
and tonic are looked for when they are used.
"""

from neuroav.data.augment import Augmentation
from neuroav.data.avdata import AVData, AVSplit
from neuroav.data.catalogue import (
    DATASETS,
    DatasetInfo,
    cache_path,
    dataset_info,
    frame_spec,
    is_zero_shot,
    load,
    load_zero_shot,
    prepare,
)
from neuroav.data.describing import describe, layout
from neuroav.data.frames import Frames, FrameSpec
from neuroav.data.tonic_view import tonic_dataset
from neuroav.data.zeroshot import ZeroShotData

__all__ = [
    "DATASETS",
    "AVData",
    "AVSplit",
    "Augmentation",
    "DatasetInfo",
    "FrameSpec",
    "Frames",
    "ZeroShotData",
    "cache_path",
    "dataset_info",
    "describe",
    "frame_spec",
    "is_zero_shot",
    "layout",
    "load",
    "load_zero_shot",
    "prepare",
    "tonic_dataset",
]

"""Facts about the data sets that are made here, and about the zero-shot benchmarks.

Those read from published files state theirs in their own modules (``neuroav.data.published``).
"""

from __future__ import annotations

from neuroav.data import avattributes, gzsl, nmnistfsdd, speech
from neuroav.data.augment import Augmentation
from neuroav.data.info import DatasetInfo


def _benchmark(title: str, name: str) -> DatasetInfo:
    """Facts of one of the published zero-shot benchmarks."""
    return DatasetInfo(
        name=name,
        title=f"{title}: audio-visual zero-shot benchmark, features and splits of AVCA",
        presets=tuple(gzsl.PRESETS),
        classes=(),
        licence=(
            "Not in the package: read from the data root. Class lists, splits and word vectors: "
            "AVCA-GZSL release (MIT); word vectors derive from fastText wiki.en (CC BY-SA 3.0)."
        ),
        limits=(
            "one averaged vector per clip and modality; cls-temporal has sequences",
            "SeLaVi features (main) were trained on VGGSound without labels",
            "the reference loader attaches the text of other classes to many classes",
        ),
        augmentation=Augmentation(),
        features=True,
    )


ENTRIES: dict[str, DatasetInfo] = {
    "av-digits": DatasetInfo(
        name="av-digits",
        title="Spoken and written digits as spikes, generated here: 1797 label-level pairs",
        presets=("default", "easy", "hard", "unreliable"),
        classes=("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
        licence=(
            "Pictures: UCI Optical Recognition of Handwritten Digits, CC BY 4.0. Speech is made by "
            "espeak-ng (GPL-3.0-or-later), run as a separate program; only spikes are kept."
        ),
        limits=(
            "synthetic speech, though no voice is in two splits",
            "pictures of 8x8 pixels before a virtual event camera",
            "the writers of the pictures are not recorded: one may be in two splits",
            "sound and picture share a label, not a moment: no audio-visual synchrony",
            "450 test pairs: accuracies are good to about two points",
        ),
        augmentation=Augmentation(),
        needs_files=False,
    ),
    "nmnist-fsdd": DatasetInfo(
        name="nmnist-fsdd",
        title="Recorded speech and event-camera digits: 2000 label-level pairs, one speaker apart",
        presets=tuple(nmnistfsdd.PRESETS),
        classes=speech.WORDS,
        licence=(
            "Pictures: N-MNIST (Orchard et al. 2015), CC BY-SA 4.0. Speech: Free Spoken Digit "
            "Dataset, CC BY-SA 4.0. Neither is in the package: both are read from the data root."
        ),
        limits=(
            "four speakers: every fold tests on one, and folds differ by far more than seeds do",
            "validation hears other recordings of the training speakers, so it is the easier",
            "500 test sounds share 150 test pictures: the pairs are not independent",
            "who wrote which digit is not used: a writer may be in two splits",
            "sound and picture share a label, not a moment: no audio-visual synchrony",
        ),
        augmentation=Augmentation(
            stretch=0.12, shift=0.08, drop=0.3, channel_shift=2, band_mask=8, time_mask=0.15
        ),
    ),
    "av-attributes": DatasetInfo(
        name="av-attributes",
        title="A digit heard and a digit seen, some never together: zero-shot vectors of av-digits",
        presets=avattributes.PRESETS,
        classes=(),
        licence="As av-digits, of whose recordings it is made; attributes: this project.",
        limits=(
            "default: every digit is trained on in some pair; what is unseen is the combination",
            "digits: seven classes to learn 35 attributes from, so most of them are confounded",
            "synthetic speech and pictures of 8x8 pixels, as in av-digits",
        ),
        augmentation=Augmentation(),
        features=True,
        needs_files=False,
    ),
    "ucf-gzsl": _benchmark("UCF101", "ucf-gzsl"),
    "vggsound-gzsl": _benchmark("VGGSound", "vggsound-gzsl"),
    "activitynet-gzsl": _benchmark("ActivityNet", "activitynet-gzsl"),
}

"""Made-up zero-shot feature files whose clips are named as the publishers name theirs.

``gzsl_files`` writes the files; here their clips get names that tell a recording, two clips of each
class and stage per recording, and the same recordings in every stage, as the published splits do.
"""

from __future__ import annotations

from pathlib import Path

import h5py
from gzsl_files import Written, make_lists, write_benchmark, write_h5

from neuroav.data.zeroshot import STAGES

_NAMES = {
    "ucf-gzsl": "v_{name}_g{group:02}_c{clip:02}",
    "vggsound-gzsl": "{number:03}-{group:07}_{clip:06}",
    "activitynet-gzsl": "{number:03}_{group:07}_{clip}",
}


def true_names(written: Written, name: str, per_recording: int = 2) -> None:
    """Rename the clips of every h5 file below ``written.folder``."""
    for path in sorted(written.folder.rglob("*.h5")):
        with h5py.File(path) as file:
            data = file["data"][()]
        first, number = STAGES.index(path.parent.name) * 100, written.lists.number(path.stem)
        names = [
            _NAMES[name].format(
                name=path.stem, number=number, group=i // per_recording + 1, clip=first + i
            )
            for i in range(len(data))
        ]
        path.unlink()
        write_h5(path, data, names)


def tiny_benchmark(
    folder: Path, name: str, preset: str, clips: int = 8, widths: tuple[int, int] = (5, 9)
) -> Path:
    """Write lists, text and features of seven made-up classes; return the data root."""
    source = make_lists(folder / "source", name, clips=clips)
    true_names(write_benchmark(folder / "root", source, name, preset, widths=widths), name)
    return folder / "root"

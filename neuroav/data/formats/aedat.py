"""AEDAT files of iniVation and jAER, 1.0 to 3.1; AEDAT 4.0 is refused with what converts it.

``aedat_header`` says where a header ends, ``aedat_records`` what 1.0 and 2.0 hold, and
``aedat_packets`` what 3.0 and 3.1 hold.

Of 1.0 and 2.0 the published readings of the same camera contradict each other: iniVation's
description has polarity 1 = ON and (0, 0) in the lower left, readers of MNIST-DVS take
x = 127 - bits and ON where the bit is clear. So the caller chooses an orientation.
"""

from __future__ import annotations

from pathlib import Path

from neuroav.data.formats import aedat_packets, aedat_records
from neuroav.data.formats.aedat_header import read_header
from neuroav.data.formats.aedat_packets import write_aedat31
from neuroav.data.formats.aedat_records import CHIPS, write_aedat1, write_aedat2
from neuroav.data.formats.events import EventStream, Orientation, opened_file
from neuroav.data.formats.records import Layout, require_whole
from neuroav.errors import DataError

__all__ = ["CHIPS", "opened", "write_aedat1", "write_aedat2", "write_aedat31"]


def opened(
    path: Path,
    orientation: Orientation | None,
    chunk_events: int,
    sensor: tuple[int, int] | None,
    order: str,
    chip: str | None,
) -> EventStream:
    """Return the stream of an AEDAT file; see ``neuroav.data.formats.events.open_events``."""
    with opened_file(path) as file:
        header = read_header(file, path)
        total = file.seek(0, 2)
    if header.version.startswith("3"):
        if chip is not None:
            raise DataError(f"{path}: chip {chip!r} is of AEDAT 2.0; AEDAT {header.version} needs "
                            "none, leave it out")  # fmt: skip
        return aedat_packets.opened(path, header, orientation, chunk_events, sensor, order)
    if orientation is None:
        raise DataError(
            f"{path}: AEDAT {header.version} is read in two ways that contradict each other in "
            "polarity and direction; say which, e.g. orientation='inivation' or 'mnist-dvs' "
            "(neuroav.data.formats.events.ORIENTATIONS)"
        )
    require_whole(Layout(path, header.start, aedat_records.RECORD[header.version]), total)
    return aedat_records.opened(path, header, orientation, chunk_events, sensor, order, chip)

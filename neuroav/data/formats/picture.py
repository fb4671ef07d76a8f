"""Pictures in JPEG and PNG files, by Pillow.

Every picture becomes RGB of 8 bits: grey is repeated, a palette looked up, transparency dropped
(not blended), CMYK converted by Pillow. 16 bits per channel are refused, Pillow would clip them. Of
an animation the first picture counts. EXIF's orientation is ignored unless asked for: the published
pipelines open pictures with Pillow, which does not apply it.

Functions here trust Pillow: read files from elsewhere through ``neuroav.data.formats.guarded``.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from neuroav.errors import ConfigError, FileFormatError, MissingDependency, NeuroavError

PRELOAD = ("PIL.Image", "PIL.JpegImagePlugin", "PIL.PngImagePlugin")
MOST_PIXELS = 1 << 25  # 33 million, about 100 MB as RGB
_MODES = ("RGB", "L", "P", "RGBA", "LA", "PA", "1", "CMYK", "YCbCr")
_DEPTH = 24  # where the header, a PNG's first chunk, says how many bits a channel has
_AGAIN = "take the file from its publishers again, or save it anew as JPEG or PNG"


def read_picture(path: Path, *, exif: str = "ignore", most_pixels: int = MOST_PIXELS) -> np.ndarray:
    """Return (rows, columns, 3) uint8 RGB.

    exif: 'ignore' or 'apply' the orientation that a camera noted. most_pixels: more are refused
    before they are decoded. FileFormatError naming the file if it is cut, damaged, too large, or
    neither JPEG nor PNG.
    """
    if exif not in ("ignore", "apply"):
        raise ConfigError(f"exif is {exif!r}: allowed are ignore, apply")
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise MissingDependency(
            "reading pictures needs Pillow; install it with: pip install 'neuroav[data]'"
        ) from None
    path = Path(path)
    if not path.is_file():
        raise FileFormatError(f"{path}: no such file; {_AGAIN}")
    try:
        with warnings.catch_warnings():
            # Pillow warns of metadata that it could not read, and of very large pictures.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=("JPEG", "PNG")) as picture:
                width, height = picture.size
                if width * height > most_pixels:
                    raise _wrong(path, f"{width} x {height} pixels", f"{most_pixels} of them")
                if picture.mode not in _MODES:
                    raise _wrong(path, f"pixels of the kind {picture.mode}", ", ".join(_MODES))
                _require_depth(path, picture.format)
                picture.load()
                _require_end(path, picture.format)
                turned = ImageOps.exif_transpose(picture) if exif == "apply" else picture
                return np.array(turned.convert("RGB"))
    except (NeuroavError, MemoryError):
        raise
    # Pillow reports damage as whatever the broken structure led to.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileFormatError(
            f"{path}: cut, damaged or no JPEG or PNG ({reason[:300]}); {_AGAIN}"
        ) from None


def _require_depth(path: Path, kind: str | None) -> None:
    """Pillow drops the lower byte of a PNG with colours of 16 bits."""
    if kind == "PNG":
        with path.open("rb") as file:
            head = file.read(_DEPTH + 1)
        if head[_DEPTH] > 8:
            raise _wrong(path, f"{head[_DEPTH]} bits per channel", "8 at most")


def _require_end(path: Path, kind: str | None) -> None:
    """Pillow takes a PNG without its end if it could fill all pixels: verify reads to the end."""
    if kind == "PNG":
        from PIL import Image

        with Image.open(path, formats=("PNG",)) as picture:
            picture.verify()


def _wrong(path: Path, found: str, allowed: str) -> FileFormatError:
    return FileFormatError(f"{path}: {found}, allowed is {allowed}; {_AGAIN}")

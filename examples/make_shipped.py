"""Write the deployment that the package ships, `shipped:tiny.nav`, from `examples/tiny.py`.

Run it with `python examples/make_shipped.py [PATH]`; a test holds the shipped file to be what
this writes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import tiny

from neuroav import navfile

PATH = Path(__file__).resolve().parent.parent / "neuroav" / "shipped" / "tiny.nav"


def main(path: Path = PATH) -> None:
    saved = navfile.save(tiny.build(), path)
    print(f"{path}: {saved.neurons} neurons, hash {saved.content_hash[:12]}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

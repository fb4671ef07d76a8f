"""Answers of a long study, kept line by line until it is finished, so that a killed one goes on.

Text lines of JSON: the first is the request that the answers belong to, every other ``[key,
answer]``. A line that a kill cut short, and everything behind it, is dropped; so are all answers of
another request.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from neuroav.errors import ExecutorError, NeuroavError


class Kept:
    """Answers by key, each written as soon as it is known; made by ``kept``."""

    def __init__(self, known: dict[str, Any], file: TextIO) -> None:
        self._known, self._file = known, file

    def get(self, key: Any) -> Any:
        """Return the answer of an earlier call, None if there is none. key: of JSON types."""
        return self._known.get(json.dumps(key))

    def add(self, key: Any, answer: Any) -> None:
        """Keep an answer, of JSON types."""
        self._known[json.dumps(key)] = answer
        self._file.write(json.dumps([key, answer]) + "\n")
        self._file.flush()


@contextmanager
def kept(path: Path, request: Mapping[str, Any]) -> Iterator[Kept]:
    """Yield the answers in ``path``, which stays where the block ends early, to go on from.

    Where it ends in an expected error the file goes, and its folder if that was made for it, as the
    same call would end there again; not where processes or workers were lost (ExecutorError).
    """
    made = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = _lines(path, request)
    with open(path, "w", encoding="utf-8") as file:
        file.write(json.dumps(request) + "\n")
        file.writelines(json.dumps(line) + "\n" for line in lines)
        file.flush()
        try:
            yield Kept({json.dumps(key): answer for key, answer in lines}, file)
        except ExecutorError:
            raise
        except NeuroavError:
            path.unlink(missing_ok=True)
            if made and not os.listdir(path.parent):
                path.parent.rmdir()
            raise


def _lines(path: Path, request: Mapping[str, Any]) -> list[Any]:
    """Return the answers in the file that belong to this request."""
    found: list[Any] = []
    try:
        with open(path, encoding="utf-8") as file:
            if json.loads(file.readline()) != request:
                return []
            for line in file:
                key, answer = json.loads(line)
                found.append([key, answer])
    except (OSError, ValueError, TypeError):
        pass  # no file, or cut here
    return found

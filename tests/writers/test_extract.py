"""Definitions copied out of modules: whole, with all they need and nothing else."""

from __future__ import annotations

import ast
import textwrap

import pytest

from neuroav_export.writers import extract as extracting
from neuroav_export.writers.extract import extract, implementing, module_text

FILES = {
    "one": '''
        """What one is for."""

        import math
        from collections.abc import Iterator

        import numpy as np

        from mine.two import LIMIT, helper

        A = 3
        B: int = A + 1
        UNUSED = np.pi


        def unused() -> Iterator:
            return unused()


        class Base:
            size = B


        # a comment that belongs to Kept
        @staticmethod
        class Kept(Base):
            def area(self, r: float) -> float:
                # and one inside
                return helper(math.pi * r) + LIMIT


        for _name in ("x", "y"):
            setattr(Kept, _name, 1)
        for _name in ("x", "y"):
            setattr(Kept, _name, UNUSED)
    ''',
    "two": """
        import os.path
        import os

        LIMIT = 9


        def helper(x):
            return os.path.join(other(x), missing)


        def other(x):
            return helper(x) if x else LIMIT


        def missing():
            raise KeyError
    """,
    "clash": """
        from mine.one import A, Kept


        def helper():
            return Kept, A
    """,
    "whole": """
        from mine import one


        def f():
            return one.A
    """,
    "parts": """
        @implements(proc=P, protocol=X)
        class Model:
            pass


        class P:
            pass
    """,
}


@pytest.fixture(autouse=True)
def mine(tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
    monkeypatch.setattr(extracting, "_PACKAGES", {"mine": tmp_path})
    extracting._module.cache_clear()
    yield
    extracting._module.cache_clear()


def test_all_that_is_needed_in_order_and_nothing_else():
    text = extract({"mine.one": ["Kept"]}, {"missing": "def missing():\n    return A"})
    names = [
        getattr(n, "name", None) or ast.unparse(getattr(n, "target", None) or n.targets[0])
        for n in ast.parse(text).body
        if not isinstance(n, (ast.Import, ast.ImportFrom))
    ]
    assert sorted(names) == [
        "A",
        "B",
        "Base",
        "Kept",
        "LIMIT",
        "_name",
        "helper",
        "missing",
        "other",
    ]
    for first, later in (("A", "B"), ("B", "Base"), ("Base", "Kept"), ("Kept", "_name")):
        assert names.index(first) < names.index(later)
    assert "# a comment that belongs to Kept\n@staticmethod\nclass Kept(Base):" in text
    assert "# and one inside" in text
    assert "def missing():\n    return A" in text
    imports = [line for line in text.splitlines() if line.startswith(("import", "from"))]
    assert imports == [
        "from __future__ import annotations",
        "import math",
        "import os",
        "import os.path",
    ]


def test_one_name_twice_is_refused():
    with pytest.raises(RuntimeError, match=r"helper is defined in mine.two and in mine.clash"):
        extract({"mine.clash": ["helper"]})


def test_a_module_as_a_whole_is_refused():
    with pytest.raises(RuntimeError, match="mine.whole: one cannot be taken along"):
        extract({"mine.whole": ["f"]})


def test_models_are_found_with_their_process():
    assert implementing("mine") == {"P": ("mine.parts", ("P", "Model"))}
    assert module_text("mine.one") == "What one is for."

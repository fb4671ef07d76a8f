"""Hardware profiles: TOML files that are the only source of limits, widths and costs.

``hardware_profiles/README.md`` documents every key. A file is checked by pydantic; an unknown,
missing or ill-typed key is a ProfileError naming file, key, found and allowed.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from neuroav.errors import ProfileError, unknown_name
from neuroav.fixed import Arithmetic

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Grade = Literal["A", "A-sim", "B", "C"]
GRADES: tuple[Grade, ...] = ("A", "A-sim", "B", "C")  # best to worst
Unit = Literal["pJ", "nJ", "uJ", "ns", "us", "mW", "bit", "byte", "count"]
ALIASES = {"loihi1": "loihi1-nahuku-fit"}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Quantity(_Strict):
    """A number that came from outside: value with range, unit, grade and source.

    value, low, high are None where the file says "unknown". Grades: A published and measured,
    A-sim published from simulation before silicon, B derived, C assumed.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    unit: Unit
    grade: Grade
    source: str = Field(min_length=3)
    note: str = ""

    @field_validator("value", "low", "high", mode="before")
    @classmethod
    def _unknown(cls, value):
        return None if value == "unknown" else value

    @model_validator(mode="after")
    def _ordered(self) -> Quantity:
        if self.value is None:
            if self.low is not None or self.high is not None:
                raise ValueError("an unknown value cannot have a range")
            return self
        low = self.value if self.low is None else self.low
        high = self.value if self.high is None else self.high
        if not low <= self.value <= high:
            raise ValueError(f"needs low <= value <= high, found {low}, {self.value}, {high}")
        return self

    @property
    def band(self) -> tuple[float, float, float] | None:
        """(low, value, high), or None when unknown."""
        if self.value is None:
            return None
        return (self.value if self.low is None else self.low, self.value,
                self.value if self.high is None else self.high)


class Numeric(_Strict):
    """Integer arithmetic of the target; fields as in ``fixed.Arithmetic``."""

    weight_bits: int = Field(ge=1, le=16)
    current_bits: int = Field(ge=8, le=32)
    voltage_bits: int = Field(ge=8, le=32)
    input_shift: int = Field(ge=0, le=16)
    decay_bits: int = Field(ge=1, le=16)
    threshold_bits: int = Field(ge=1, le=24)
    bias_bits: int = Field(ge=1, le=24)
    bias_exponent_max: int = Field(ge=0, le=15)
    payload_bits: int = Field(ge=1, le=32)
    delay_max: int = Field(ge=0, le=4096)
    graded_spikes: bool
    oracle: str
    source: str


class Topology(_Strict):
    cores_total: Quantity
    cores_usable: Quantity
    chips: Quantity


class CoreLimits(_Strict):
    neurons: Quantity
    memory_total: Quantity
    memory_synapse: Quantity
    axons_in: Quantity
    axons_out: Quantity


class Energy(_Strict):
    """Energy per event. Every key is one kind of event counted by ``neuroav.counts``."""

    synop_conv: Quantity
    synop_dense: Quantity
    synop_sparse: Quantity
    neuron_update: Quantity
    spike_out: Quantity
    message_out: Quantity
    hop: Quantity
    core_step: Quantity
    static_chip: Quantity
    host_io: Quantity


class Timing(_Strict):
    """Time per event on the busiest core, and per step."""

    synop: Quantity
    neuron_update: Quantity
    barrier: Quantity
    step_floor: Quantity


class Profile(_Strict):
    """One target: what it computes, what fits, what it costs."""

    schema_version: Literal[1] = Field(alias="schema")
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: str
    use: Literal["deploy", "cost-only"]
    numeric: Numeric
    topology: Topology
    core: CoreLimits
    energy: Energy
    time: Timing
    text: str = Field(default="", repr=False, exclude=True)

    @property
    def arithmetic(self) -> Arithmetic:
        """The integer arithmetic, as the executors take it."""
        fields = Arithmetic.__dataclass_fields__
        return Arithmetic(**{name: getattr(self.numeric, name) for name in fields})

    @property
    def hash(self) -> str:
        """sha256 of the profile file's text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def _folders() -> Iterator:
    """Yield where profiles may lie: inside the installed package, or beside it in a checkout."""
    inside = resources.files("neuroav") / "hardware_profiles"
    if inside.is_dir():
        yield inside
    else:
        yield Path(__file__).resolve().parent.parent / "hardware_profiles"


def list_profiles() -> list[str]:
    """Return the ids of the shipped profiles, sorted."""
    names = {f.name for folder in _folders() for f in folder.iterdir()}
    return sorted(n[:-5] for n in names if n.endswith(".toml"))


def load_profile(id_or_path: str | Path) -> Profile:
    """Return the profile with this id, or the one in this ``.toml`` file; ProfileError otherwise."""
    name = str(id_or_path)
    if name.endswith(".toml"):
        path = Path(name)
        try:
            return parse_profile(path.read_text(encoding="utf-8"), name)
        except (OSError, UnicodeDecodeError) as error:
            raise ProfileError(f"{name}: cannot be read ({error}); give a profile file or one of "
                               f"{', '.join(list_profiles())}") from None
    name = ALIASES.get(name, name)
    for folder in _folders():
        file = folder / f"{name}.toml"
        if file.is_file():
            return parse_profile(file.read_text(encoding="utf-8"), f"{name}.toml")
    raise unknown_name("profile", name, [*list_profiles(), *ALIASES], ProfileError)


def parse_profile(text: str, where: str) -> Profile:
    """Return the profile in ``text``; ProfileError lists every bad key with what was found."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"{where}: not a TOML file: {error}") from None
    if "text" in data:
        raise ProfileError(f"{where}: key 'text' is not allowed")
    try:
        return Profile(**data, text=text)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg']}, found {str(e['input'])[:60]!r}"
            for e in error.errors()
        )
        raise ProfileError(f"{where}: {problems}; hardware_profiles/README.md lists the keys") from None

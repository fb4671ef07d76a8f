"""Hardware profiles: TOML files that are the only source of limits, widths and costs.

``hardware_profiles/README.md`` documents every key. A file is checked by pydantic; an unknown,
missing or ill-typed key is a ProfileError naming file, key, found and allowed.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from neuroav.errors import ProfileError, unknown_name
from neuroav.fixed import Arithmetic

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

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
        return (
            self.value if self.low is None else self.low,
            self.value,
            self.value if self.high is None else self.high,
        )


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
    thresholds_per_neuron: bool
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


def profile_aliases() -> dict[str, str]:
    """Return alias -> id, for the aliases whose profile is shipped."""
    shipped = list_profiles()
    return {alias: target for alias, target in ALIASES.items() if target in shipped}


def load_profile(id_or_path: str | Path) -> Profile:
    """Return the profile with this id or in this ``.toml`` file; ProfileError otherwise."""
    name = str(id_or_path)
    if name.endswith(".toml"):
        return read_profile(name)
    known, aliases = list_profiles(), profile_aliases()
    if name not in known and name not in aliases:
        raise unknown_name("profile", name, [*known, *aliases], ProfileError)
    name = aliases.get(name, name)
    file = next(f for folder in _folders() if (f := folder / f"{name}.toml").is_file())
    return parse_profile(file.read_text(encoding="utf-8"), f"{name}.toml")


def read_profile(path: str | Path) -> Profile:
    """Return the profile in a file; ProfileError when it cannot be read or has a bad key."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ProfileError(
            f"{path}: cannot be read ({reason}); give a profile's .toml file, or one of "
            f"{', '.join(list_profiles())} without .toml"
        ) from None
    return parse_profile(text, str(path))


def parse_profile(text: str, where: str) -> Profile:
    """Return the profile in ``text``; ProfileError lists every bad key with what was found."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"{where}: not a TOML file: {error}") from None
    if "text" in data:  # a field of ours, which pydantic would take for a key of the file
        raise ProfileError(f"{where}: key text: is unknown, allowed are {', '.join(_keys([]))}")
    try:
        return Profile(**data, text=text)
    except ValidationError as error:
        problems = [_problem(e) for e in error.errors() if e["type"] != "missing"]
        missing = [_dotted(e["loc"]) for e in error.errors() if e["type"] == "missing"]
    if missing:
        problems.append(f"missing are the keys {', '.join(missing)}")
    raise ProfileError(
        f"{where}: {'; '.join(problems)}; hardware_profiles/README.md lists the keys"
    )


def _dotted(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location))


def _problem(item: ErrorDetails) -> str:
    """Return one line about one bad key: its dotted name, what was found, what is allowed."""
    key = _dotted(item["loc"])
    *parents, last = map(str, item["loc"])
    if item["type"] == "extra_forbidden":
        allowed = _keys(parents)
        near = get_close_matches(last, allowed, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        return f"key {key}: is unknown{hint}, allowed are {', '.join(allowed)}"
    # A validator of a whole table is given the table; its message says what was found.
    found = "" if isinstance(item["input"], dict) else f", found {str(item['input'])[:60]!r}"
    return f"key {key}: {item['msg']}{found}"


def _keys(parents: list[str]) -> list[str]:
    """Return the names allowed in a table of a profile file."""
    model: type[BaseModel] = Profile
    for parent in parents:
        annotation = model.model_fields[parent].annotation
        assert isinstance(annotation, type)
        assert issubclass(annotation, BaseModel)
        model = annotation
    return [f.alias or n for n, f in model.model_fields.items() if not f.exclude]

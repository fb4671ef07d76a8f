"""Hardware profiles: TOML files that are the only source of limits, widths and costs.

``hardware_profiles/README.md`` documents every key. A file is checked by pydantic; an unknown,
missing or ill-typed key is a ProfileError naming file, key, found and allowed. What a file extends
and files of schema 1 are resolved before, in ``neuroav.profile_files``.
"""

from __future__ import annotations

import hashlib
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import tomli_w
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from neuroav import profile_files
from neuroav.errors import ProfileError
from neuroav.fixed import Arithmetic
from neuroav.profile_files import ALIASES as ALIASES
from neuroav.profile_files import list_profiles as list_profiles
from neuroav.profile_files import profile_aliases as profile_aliases

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Grade = Literal["A", "A-sim", "B", "C"]
GRADES: tuple[Grade, ...] = ("A", "A-sim", "B", "C")  # best to worst
Unit = Literal["pJ", "nJ", "uJ", "ns", "us", "mW", "bit", "byte", "count"]


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


def _in(*units: Unit) -> AfterValidator:
    """Return the check that a quantity is given in one of ``units``."""

    def check(quantity: Quantity) -> Quantity:
        if quantity.unit not in units:
            raise ValueError(f"needs the unit {' or '.join(units)}, found {quantity.unit!r}")
        return quantity

    return AfterValidator(check)


Count = Annotated[Quantity, _in("count")]
Bytes = Annotated[Quantity, _in("byte")]
Bits = Annotated[Quantity, _in("bit")]
Joules = Annotated[Quantity, _in("pJ", "nJ", "uJ")]
Seconds = Annotated[Quantity, _in("ns", "us")]
Watts = Annotated[Quantity, _in("mW")]


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
    reset_by_subtraction: bool = False
    oracle: str
    source: str


class Topology(_Strict):
    """Cores of a chip, the grid of routers they hang on, and the grid of chips."""

    cores_total: Count
    cores_usable: Count
    chips: Count
    chips_x: Count
    routers_x: Count
    routers_y: Count
    cores_per_router: Count


class CoreLimits(_Strict):
    """What one core holds, and what one neuron may have; an unknown limit is not checked."""

    neurons: Count
    memory_total: Bytes
    memory_synapse: Bytes
    axons_in: Count
    axons_out: Count
    fan_in: Count
    fan_out: Count
    state_bytes: Bytes
    programs: Count


class Layout(_Strict):
    """Memory that each part of a network takes in a core."""

    neuron_bytes: Bytes
    delay_slot_bytes: Bytes
    synapse_overhead_bits: Bits
    axon_in_bytes: Bytes
    axon_out_bytes: Bytes
    program_bytes: Bytes
    convolution_shared: bool


class Energy(_Strict):
    """Energy per event. Every key is one kind of event, counted exactly.

    scope: 'per_event', or 'all_in' where a synaptic operation's figure holds all other terms.
    """

    scope: Literal["per_event", "all_in"]
    synop_conv: Joules
    synop_dense: Joules
    synop_sparse: Joules
    neuron_update: Joules
    spike_out: Joules
    message_out: Joules
    hop_x: Joules
    hop_y: Joules
    chip_message: Joules
    core_step: Joules
    static_chip: Watts
    host_io: Joules


class Timing(_Strict):
    """Time per event on the busiest core, and per step; combine: how a core's terms meet."""

    combine: Literal["additive", "max_affine"]
    synop: Seconds
    neuron_update: Seconds
    spike_out: Seconds
    message_in: Seconds
    barrier: Seconds
    step_floor: Seconds


class Validation(_Strict):
    """A measured point that the profile is held against; error is predicted / measured - 1."""

    case: str
    quantity: str
    predicted: float
    measured: float
    unit: str
    error: float
    source: str = Field(min_length=3)

    @model_validator(mode="after")
    def _adds_up(self) -> Validation:
        error = self.predicted / self.measured - 1 if self.measured else float("nan")
        if not abs(self.error - error) <= 0.0005:
            raise ValueError(f"error is predicted / measured - 1 = {error:.4f}, found {self.error}")
        return self


class Profile(_Strict):
    """One target: what it computes, what fits, what it costs.

    numeric is None for a target that is 'cost-only'; ``differs`` then says why.
    text: the profile as a document of its own, which a FILE.nav carries.
    """

    schema_version: Literal[2] = Field(alias="schema")
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: str
    use: Literal["deploy", "cost-only"]
    revision: str = ""
    operating_point: str = ""
    differs: str = ""
    numeric: Numeric | None = None
    topology: Topology
    core: CoreLimits
    layout: Layout
    energy: Energy
    time: Timing
    validation: tuple[Validation, ...] = ()
    text: str = Field(default="", repr=False, exclude=True)

    @property
    def deployable(self) -> bool:
        """Whether networks can be exported for the target: its arithmetic is ours."""
        return self.use == "deploy"

    @property
    def rules(self) -> Numeric:
        """The table ``numeric``; ProfileError where the target's arithmetic is not ours."""
        if self.numeric is None:
            raise self.not_ours()
        return self.numeric

    @property
    def arithmetic(self) -> Arithmetic:
        """The integer arithmetic, as the executors take it; ProfileError where it is not ours."""
        fields = Arithmetic.__dataclass_fields__
        return Arithmetic(**{name: getattr(self.rules, name) for name in fields})

    def not_ours(self) -> ProfileError:
        """Return the refusal of a 'cost-only' target, with its reason."""
        return ProfileError(
            f"{self.id}: is a cost-only profile, its arithmetic is not ours "
            f"({self.differs.rstrip('.')}), so nothing can be exported for it; price a deployment "
            f"with `neuroav report --profile {self.id}` instead",
            rule="cost-only",
        )

    @property
    def hash(self) -> str:
        """sha256 of ``text``."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def load_profile(id_or_path: str | Path) -> Profile:
    """Return the profile with this id or in this ``.toml`` file; ProfileError otherwise."""
    name = str(id_or_path)
    if name.endswith(".toml"):
        return read_profile(name)
    name, text = profile_files.shipped_text(name)
    return parse_profile(text, f"{name}.toml")


def read_profile(path: str | Path) -> Profile:
    """Return the profile in a file; ProfileError when it cannot be read or has a bad key."""
    text = profile_files.read_text(path)
    return parse_profile(text, str(path), Path(path).resolve().parent)


def parse_profile(text: str, where: str, folder: Path | None = None) -> Profile:
    """Return the profile in ``text``; ProfileError lists every bad key with what was found.

    folder: where a relative path in ``extends`` starts. A profile that extends another has a
    ``text`` of its own, the merged document.
    """
    document = profile_files.parse(text, where)
    data, ancestors = profile_files.complete(document, where, folder)
    if ancestors:
        text = tomli_w.dumps(data)
    problems = _of_use(data)
    if "text" in data:  # a field of ours, which pydantic would take for a key of the file
        problems.append(f"key text: is unknown, allowed are {', '.join(_keys([]))}")
        del data["text"]
    missing: list[str] = []
    try:
        profile = Profile(**data, text=text)
    except ValidationError as error:
        problems += [_problem(e) for e in error.errors() if e["type"] != "missing"]
        missing = [_dotted(e["loc"]) for e in error.errors() if e["type"] == "missing"]
    if missing:
        problems.append(f"missing are the keys {', '.join(missing)}")
    if not problems:
        return profile
    among = f" (with what it extends, {', '.join(ancestors)})" if ancestors else ""
    raise ProfileError(
        f"{where}{among}: {'; '.join(problems)}; hardware_profiles/README.md lists the keys"
    )


def _of_use(data: dict[str, Any]) -> list[str]:
    """Return what a document lacks, or has too much, for its ``use``."""
    problems = []
    if data.get("use") == "deploy":
        if "numeric" not in data:
            problems.append("key numeric: is missing, use = 'deploy' needs it")
        if "differs" in data:
            problems.append("key differs: is for use = 'cost-only', found use = 'deploy'")
    if data.get("use") == "cost-only":
        if "numeric" in data:
            problems.append("key numeric: is for use = 'deploy', found use = 'cost-only'")
        if not data.get("differs"):
            problems.append(
                "key differs: is missing, use = 'cost-only' needs one sentence: why the target's "
                "arithmetic is not ours"
            )
    return problems


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
        if not parent.isdigit():  # a place in an array of tables
            model = table_of(model.model_fields[parent].annotation) or model
    names = [f.alias or n for n, f in model.model_fields.items() if not f.exclude]
    return [*names, "extends"] if model is Profile else names


def table_of(annotation: Any) -> type[BaseModel] | None:
    """Return the model of a key that is a table, may be one, or is an array of some; else None."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None

"""Published measurements of chips, from ``hardware_profiles/tables/measured.toml``.

The file says at its head what its keys mean. Every number is a Quantity: value, low, high, unit,
grade, source.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from neuroav.errors import ProfileError
from neuroav.hardware import Quantity
from neuroav.profile_files import parse, table_text

FILE = "measured.toml"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CoefficientSet(_Strict):
    """Prices in pJ per event as one publication states them; hop: per hop of a spike."""

    name: str
    synop: float
    neuron_update: float
    spike: float
    hop: float
    source: str


class Reaches(_Strict):
    """The convolution that receives a layer's spikes, along columns; slice: columns per core."""

    kernel: int
    stride: int
    padding: int
    columns: int
    slice: int


class Layer(_Strict):
    """A layer of a compiled network and the cores that one of its spikes reaches.

    columns: of the layer, where every core of the next holds whole rows of some columns.
    """

    name: str
    neurons: int
    columns: int = 1
    reaches: Reaches | None = None
    cores_reached: int = 0

    def destinations(self) -> float:
        """Return cores that a spike reaches, mean over the columns it may come from."""
        to = self.reaches
        if to is None:
            return float(self.cores_reached)
        cores = 0
        for column in range(self.columns):
            hit = {
                place // to.slice
                for place in range(to.columns)
                if 0 <= column + to.padding - place * to.stride < to.kernel
            }
            cores += len(hit)
        return cores / self.columns


class Point(_Strict):
    """One published measurement.

    profile: whose coefficients predict it. inputs: 'full' where all event counts are in hand.
    read: 'primary' publication, its 'figures', or 'quoted' from a text that quotes it.
    coefficients_from_here: numbers of the profile that were derived from this very point.
    """

    id: str = Field(pattern=r"^V\d+[ab]?$")
    profile: str
    chips: int | None = None
    workload: str
    inputs: Literal["full", "part"]
    read: Literal["primary", "figures", "quoted"]
    source: str
    missing: tuple[str, ...] = Field(min_length=1)
    coefficients_from_here: tuple[str, ...] = ()
    measured: dict[str, Quantity] = {}
    activity: dict[str, Quantity] = {}
    layers: tuple[Layer, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _sourced(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Give a number without a source that of its point."""
        given = {"source": data.get("source", "")}
        found = dict(data)
        for key in ("measured", "activity"):
            if isinstance(data.get(key), dict):
                found[key] = {
                    name: given | number if isinstance(number, dict) else number
                    for name, number in data[key].items()
                }
        return found


class Table(_Strict):
    """The whole file. hops: of a message, where the positions of cores are unknown."""

    schema_: Literal[1] = Field(alias="schema")
    hops: Quantity
    set: tuple[CoefficientSet, ...]
    point: tuple[Point, ...]

    def of(self, name: str) -> Point:
        """Return the point with this id."""
        return next(p for p in self.point if p.id == name)


def parse_table(text: str) -> Table:
    """Return the table in a text; ProfileError names the first bad key."""
    try:
        return Table(**parse(text, FILE))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ProfileError(f"{FILE}: key {key}: {first['msg']}; its head lists the keys") from None


@cache
def load_table() -> Table:
    """Return the shipped table."""
    return parse_table(table_text(FILE))

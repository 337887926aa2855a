"""What specifications are made of: frozen sections, numbers within bounds, names of a catalog."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from sparseflow.core import BadValue, Catalog, UnknownName, check_fraction


class Section(BaseModel):
    """A frozen group of fields; a field that does not exist is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def known_in(catalog: Catalog[Any], name: str, also: str = "") -> str:
    """The name, if the catalog holds it; else a ValueError that lists the names."""
    if name not in catalog:
        raise ValueError(str(UnknownName(catalog.kind, name, catalog.names, also=also)))
    return name


def no_truth_value(value: Any) -> Any:
    """The value, unless it is one that YAML made of `yes` or a word."""
    if isinstance(value, bool | str):
        raise ValueError(f"expected a number, got {value!r}")
    return value


Whole = Annotated[int, Field(strict=True)]
Number = Annotated[float, BeforeValidator(no_truth_value), Field(allow_inf_nan=False)]
Positive = Annotated[Whole, Field(ge=1)]
NonNegative = Annotated[Number, Field(ge=0.0)]
Fraction = Annotated[Number, Field(ge=0.0, lt=1.0)]
Share = Annotated[Number, Field(gt=0.0, lt=1.0)]
Density = Annotated[float, BeforeValidator(no_truth_value)]


def fraction(what: str, value: float) -> float:
    """The value, if it lies in (0, 1]; else a ValueError that says so."""
    try:
        return check_fraction(what, value)
    except BadValue as error:
        raise ValueError(str(error)) from None

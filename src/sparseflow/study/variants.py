"""The variants of the comparison, named as the papers name them: parts joined by underscores, `DA_L2_SC_BN`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field

from sparseflow.core import BadValue, Catalog
from sparseflow.study.fields import Number, Section, Share


class Strengths(Section):
    """How strong the variants' penalties are."""

    l2: Annotated[Number, Field(gt=0.0)] = 1e-4
    """001 sec. 3.3.2; decoupled for AdamW."""
    l1: Annotated[Number, Field(gt=0.0)] = 1e-5
    dropout: Share = 0.2


Change = dict[str, dict[str, Any]]
parts: Catalog[Callable[[Strengths], Change]] = Catalog("variant")


@parts.add("NR", cite="001 sec. 3.3.2")
def no_regularisation(strengths: Strengths) -> Change:
    """No regularisation."""
    return {}


@parts.add("DA", cite="001 sec. 3.3.2")
def augmentation(strengths: Strengths) -> Change:
    """Data augmentation: random crop, and horizontal flip where it keeps the class."""
    return {"data": {"augment": True}}


@parts.add("L2", cite="001 sec. 3.3.2")
def weight_decay(strengths: Strengths) -> Change:
    """Weight decay."""
    return {"optimizer": {"weight_decay": strengths.l2}}


@parts.add("SC", cite="001 sec. 3.3.2")
def skip_connections(strengths: Strengths) -> Change:
    """Skip connections over two layers."""
    return {"model": {"skip": True}}


@parts.add("BN", cite="001 sec. 3.3.2")
def batch_norm(strengths: Strengths) -> Change:
    """Batch normalisation."""
    return {"model": {"norm": "batch"}}


@parts.add("LN", cite="beyond the papers (001 sec. 3.5)")
def layer_norm(strengths: Strengths) -> Change:
    """Layer normalisation."""
    return {"model": {"norm": "layer"}}


@parts.add("L1", cite="beyond the papers (001 sec. 3.5)")
def l1_penalty(strengths: Strengths) -> Change:
    """L1 penalty on active weights."""
    return {"optimizer": {"l1": strengths.l1}}


@parts.add("DO", cite="beyond the papers (001 sec. 3.5)")
def dropout(strengths: Strengths) -> Change:
    """Dropout after every hidden activation."""
    return {"model": {"dropout": strengths.dropout}}


def variant(name: str, strengths: Strengths) -> Change:
    """What a variant changes in a run: section -> field -> value.

    Raises:
        UnknownName: for a part that is not in the catalog.
        BadValue: for a part named twice, two normalisations, or NR joined with another.
    """
    names = name.split("_")
    if len(set(names)) < len(names):
        raise BadValue(f"variant {name!r} names a part twice")
    if "NR" in names and len(names) > 1:
        raise BadValue(f"variant {name!r}: NR is no regularisation and stands alone")
    change: Change = {}
    for part in names:
        for section, fields in parts[part](strengths).items():
            known = change.setdefault(section, {})
            if known.keys() & fields.keys():
                raise BadValue(f"variant {name!r} sets {section}.{next(iter(fields))} twice")
            known.update(fields)
    return change

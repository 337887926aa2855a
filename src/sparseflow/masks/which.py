"""Which weights may be pruned: every weight of two dimensions or more, or a selection of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase

from torch import nn

from sparseflow.core import BadValue, stand_ins, weight_shapes

Selector = str | type[nn.Module] | Callable[[str, nn.Parameter], bool]
"""A pattern of the weight's or its module's name (`*`, `?`, `[...]`), the type of its module, or a predicate."""

Selection = Selector | Iterable[Selector] | None


def prunable(model: nn.Module, only: Selection = None, exclude: Selection = None) -> dict[str, nn.Parameter]:
    """Weight name -> parameter, in the model's order; a weight that several modules share goes by its first name.

    Raises:
        BadValue: for a selector that matches nothing, a model with compact layers, or no weight left.
    """
    if compact := list(stand_ins(model)):
        raise BadValue(f"{', '.join(compact)} is compact: its mask is fixed; prune before compact(), or expand() first")
    found: dict[str, nn.Parameter] = {}
    shared: set[int] = set()
    for name in weight_shapes(model):
        parameter = model.get_parameter(name)
        if id(parameter) not in shared:
            shared.add(id(parameter))
            found[name] = parameter
    if only is not None:
        kept = matching(model, found, only, "only")
        found = {name: p for name, p in found.items() if name in kept}
    dropped = matching(model, found, exclude, "exclude")
    left = {name: p for name, p in found.items() if name not in dropped}
    if not left:
        raise BadValue("the model has no weight to prune (none of two dimensions or more is selected)")
    return left


def matching(model: nn.Module, weights: dict[str, nn.Parameter], selection: Selection, what: str) -> set[str]:
    """Names of the weights that any of the selectors matches.

    Raises:
        BadValue: for a selector that matches nothing; `what` says whose it is.
    """
    if selection is None:
        return set()
    selectors = [selection] if isinstance(selection, str | type) or callable(selection) else selection
    found: set[str] = set()
    for selector in selectors:
        hits = {name for name, parameter in weights.items() if _matches(model, name, parameter, selector)}
        if not hits:
            raise BadValue(f"{what}: {_described(selector)} matches no weight (there are: {', '.join(weights)})")
        found |= hits
    return found


def _matches(model: nn.Module, name: str, parameter: nn.Parameter, selector: Selector) -> bool:
    module = name.rpartition(".")[0]
    if isinstance(selector, str):
        return fnmatchcase(name, selector) or fnmatchcase(module, selector)
    if isinstance(selector, type):
        return isinstance(model.get_submodule(module), selector)
    return bool(selector(name, parameter))


def _described(selector: Selector) -> str:
    return repr(selector) if isinstance(selector, str) else getattr(selector, "__name__", repr(selector))

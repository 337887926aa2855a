"""The loss around finished runs: along directions of their weights, and around their inputs (003 Fig. 8, 10)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparseflow.core import BadValue, Batch, stream_seed
from sparseflow.measure import curvature, landscape
from sparseflow.measure.probing import BatchNorm
from sparseflow.study.curved import Curvature, hessian_of
from sparseflow.study.parts import PartFile
from sparseflow.study.reload import Loaded, Which

View = Literal["eigenvector", "random", "plane", "input"]
Progress = Callable[[int, int], None]

Row = Callable[[float], list[float]]
"""x -> losses over all y."""


@dataclass(frozen=True)
class Look:
    """Where to look.

    Attributes:
        view: along the Hessian's top eigenvector, a random direction, two of them, or around the inputs.
        distances: along every direction.
        which, examples: whose loss it is.
        hessian_examples: training examples of the Hessian.
        batch_norm: of the Hessian and of losses over weights; inputs are looked at with running statistics.
    """

    view: View
    distances: tuple[float, ...]
    which: Which = "test"
    examples: int = 10_000
    hessian_examples: int = 1000
    batch_norm: BatchNorm = "eval"
    seed: int = 0


@dataclass(frozen=True)
class Terrain:
    """Mean losses: `losses[i][j]` at `xs[i]` along the first direction and `ys[j]` along the second; a line has one y.

    Attributes:
        flat: examples left out, since their loss has no gradient to go along.
        eigenvalue: of the direction, where it is the top eigenvector.
    """

    label: str
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    losses: tuple[tuple[float, ...], ...]
    examples: int
    flat: int = 0
    eigenvalue: float | None = None


def terrain(
    net: Loaded,
    look: Look,
    parts: PartFile,
    settings: Mapping[str, Any],
    progress: Progress = lambda done, total: None,
) -> Terrain:
    """Look around, row by row; what the folder has already is not computed again.

    Args:
        settings: what the numbers depend on besides the network and `look`.
        progress: called with the rows done, and all.

    Raises:
        BadValue: where no example has a gradient, or the loss no curvature.
        SparseflowError: where the top eigenvector is not found.
    """
    basis = {
        "analysis": "landscape", **net.identity, "view": look.view, "split": look.which, "examples": look.examples,
        "batch_norm": look.batch_norm, "seed": look.seed, **settings,
    }  # fmt: skip
    if look.view == "eigenvector":
        basis["hessian_examples"] = look.hessian_examples
    batches = net.sample(look.which, look.examples)
    asked = sum(len(y) for _, y in batches)
    top = _Top(net, look)
    eigenvalue = parts.take({**basis, "part": "eigenvalue"}, top.value) if look.view == "eigenvector" else None
    ys = look.distances if look.view in ("plane", "input") else (0.0,)
    if look.view == "input":
        model = copy.deepcopy(net.model).double()  # gradients of examples that are learnt well are too short for less
        batches = _sloping(model, batches)
        if not batches:
            raise BadValue(f"{net.label}: no example has a loss gradient to go along")
        row = _around_inputs(model, look, batches, ys)
    else:
        row = _over_weights(net, look, batches, ys, top)
    found = []
    for number, x in enumerate(look.distances, 1):
        found.append(tuple(parts.take({**basis, "x": x, "ys": list(ys)}, lambda at=x: row(at))))  # type: ignore[misc]
        progress(number, len(look.distances))
    examples = sum(len(y) for _, y in batches)
    return Terrain(net.label, look.distances, ys, tuple(found), examples, asked - examples, eigenvalue)


class _Top:
    """The top eigenvector of the loss on training examples, found when it is asked for first."""

    def __init__(self, net: Loaded, look: Look) -> None:
        self._net, self._look = net, look
        self._found: tuple[float, dict[str, Tensor]] | None = None

    def value(self) -> float:
        return self._pair()[0]

    def vector(self) -> dict[str, Tensor]:
        """By weight name, of length 1, on the side to which the training loss rises."""
        return self._pair()[1]

    def _pair(self) -> tuple[float, dict[str, Tensor]]:
        if self._found is None:
            batches = self._net.sample("train", self._look.hessian_examples)
            how = Curvature(batch_norm=self._look.batch_norm)
            hessian = hessian_of(self._net, batches, how)
            pairs = curvature.extremes(hessian, top=1, seed=self._look.seed).top
            vector = pairs.vectors[:, 0]
            if torch.dot(vector, hessian.gradient) < 0:
                vector = -vector
            self._found = float(pairs.values[0]), hessian.coordinates.dense(vector)
        return self._found


def _over_weights(net: Loaded, look: Look, batches: Sequence[Batch], ys: Sequence[float], top: _Top) -> Row:
    def row(x: float) -> list[float]:
        first: landscape.Direction
        second: landscape.Direction
        if look.view == "eigenvector":
            first, second = top.vector(), {}
        else:
            first, second = (
                landscape.random_direction(net.model, net.masks, seed=look.seed, number=number) for number in (0, 1)
            )
        plane = landscape.plane(
            net.model, F.cross_entropy, batches, first, second, [x], ys, net.masks, batch_norm=look.batch_norm
        )
        return list(plane.losses[0])

    return row


def _around_inputs(model: nn.Module, look: Look, batches: Sequence[Batch], ys: Sequence[float]) -> Row:
    """Batch by batch, each with random directions of its own."""
    examples = sum(len(y) for _, y in batches)

    def row(x: float) -> list[float]:
        total = [0.0] * len(ys)
        for number, batch in enumerate(batches):
            seed = stream_seed(look.seed, "inputs", number)
            (losses,) = landscape.around_input(model, F.cross_entropy, batch, [x], ys, seed=seed).losses
            total = [so_far + len(batch[1]) * loss for so_far, loss in zip(total, losses, strict=True)]
        return [one / examples for one in total]

    return row


def _sloping(model: nn.Module, batches: Sequence[Batch]) -> list[Batch]:
    """Those examples whose loss has a gradient, in the model's dtype: where no unit answers there is no direction."""
    found = []
    for inputs, targets in batches:
        leaf = inputs.to(next(model.parameters()).dtype).requires_grad_(True)
        (slope,) = torch.autograd.grad(F.cross_entropy(model(leaf), targets), leaf)
        some = slope.flatten(1).norm(dim=1) > 0
        if some.any():
            found.append((leaf.detach()[some], targets[some]))
    return found

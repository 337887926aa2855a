"""The loss around a network: along directions of its active weights, and around its inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparseflow.core import BadValue, Batch, Loss, Masks, stream
from sparseflow.measure.coordinates import Coordinates
from sparseflow.measure.outcome import outcome
from sparseflow.measure.probing import BatchNorm, own_copy, read

Direction = Mapping[str, Tensor]
"""Weight name -> dense tensor of its shape, 0 where the weight is masked; weights that are not named stay."""


@dataclass(frozen=True)
class Line:
    """Mean losses at the given multiples of a direction: `losses[i]` at `distances[i]`."""

    distances: tuple[float, ...]
    losses: tuple[float, ...]


@dataclass(frozen=True)
class Plane:
    """Mean losses over a plane: `losses[i][j]` at `xs[i]` times the first direction + `ys[j]` times the second."""

    xs: tuple[float, ...]
    ys: tuple[float, ...]
    losses: tuple[tuple[float, ...], ...]


def random_direction(
    model: nn.Module, masks: Masks | None = None, *, seed: int = 0, number: int = 0
) -> dict[str, Tensor]:
    """A random direction with the network's own scale, filter by filter (Li et al. 2018, arXiv:1712.09913, sec. 4).

    Normal numbers for the active weights; those of each filter (the weights of one output: a row of a linear layer)
    are scaled to the norm of the filter's own weights, so networks that differ in the scale of their filters alone have
    the same landscape. Biases and the parameters of normalisation stay where they are, as there.

    Args:
        masks: of layers in masked execution; compact layers know theirs.
        seed, number: name the draw; the second direction of a plane is that of another number.

    Returns:
        weight name -> dense tensor; 0 where masked.
    """
    coordinates = Coordinates(model, masks)
    weights = coordinates.dense(coordinates.of_model(model))
    drawn = torch.empty(coordinates.size, dtype=torch.float64)
    for name, place in coordinates.places.items():
        generator = stream(seed, "direction", number, name)
        drawn[place.coordinates].normal_(generator=generator)
    given = coordinates.of_model(model)
    found = {}
    for name, direction in coordinates.dense(drawn.to(given)).items():
        own, rows = weights[name].flatten(1).norm(dim=1), direction.flatten(1)
        length = rows.norm(dim=1)
        scale = torch.where(length > 0, own / length.where(length > 0, 1.0), 0.0)  # a filter without active weights
        found[name] = (rows * scale.unsqueeze(1)).view_as(direction)
    return found


def line(
    model: nn.Module,
    loss: Loss,
    batches: Iterable[Batch],
    direction: Direction,
    distances: Sequence[float],
    masks: Masks | None = None,
    *,
    batch_norm: BatchNorm = "eval",
) -> Line:
    """The loss at theta + distance * direction; the model comes back as it was.

    Along a Hessian's top eigenvector (003 Fig. 8): `line(model, loss, test_batches, h.coordinates.dense(v), ...)` with
    `v = extremes(h).top.vectors[:, 0]`, of unit length, so that a distance is one in the space of active weights.

    Args:
        direction: weight name -> dense tensor; only active weights move.
        masks: of layers in masked execution; compact layers know theirs.
        batch_norm: normalise with the running statistics of the network at distance 0, or with each batch's.

    Raises:
        BadValue: for a direction that names no weight of the model, has another shape or moves a masked weight, or
            without batches.
    """
    grid = plane(model, loss, batches, direction, {}, distances, [0.0], masks, batch_norm=batch_norm)
    return Line(grid.xs, tuple(row[0] for row in grid.losses))


def plane(
    model: nn.Module,
    loss: Loss,
    batches: Iterable[Batch],
    first: Direction,
    second: Direction,
    xs: Sequence[float],
    ys: Sequence[float],
    masks: Masks | None = None,
    *,
    batch_norm: BatchNorm = "eval",
) -> Plane:
    """The loss at theta + x * first + y * second, for all x and y; as `line`."""
    work, some = own_copy(model, batch_norm), read(batches)
    coordinates = Coordinates(work, masks, others=True)
    start = coordinates.of_model(work)
    along, across = (_flat(coordinates, direction, like=start) for direction in (first, second))

    def at(x: float, y: float) -> float:
        coordinates.place(work, start + x * along + y * across)
        return outcome(work, loss, some).loss

    losses = tuple(tuple(at(x, y) for y in ys) for x in xs)
    return Plane(tuple(map(float, xs)), tuple(map(float, ys)), losses)


def around_input(
    model: nn.Module, loss: Loss, batch: Batch, xs: Sequence[float], ys: Sequence[float], *, seed: int = 0
) -> Plane:
    """The mean loss of examples, each moved along its own loss gradient and a random direction (003 Fig. 10).

    In evaluation mode. Both directions have length 1 in the inputs' space (L2 norm over all values of an example, in
    the units that the network is given), and the random one, of normal numbers, is orthogonal to the gradient. The
    paper names no scale.

    Args:
        batch: (inputs, targets), the examples to average over; one example is a batch of one.
        xs, ys: distances along the gradient (the loss rises) and along the random direction.

    Raises:
        BadValue: for inputs that are not floating-point numbers, or an example whose gradient is 0 or not finite.
    """
    inputs, targets = batch
    if not inputs.is_floating_point():
        raise BadValue(f"inputs of {inputs.dtype} have no gradient; give floating-point ones")
    work = own_copy(model, "eval")
    with torch.enable_grad():
        leaf = inputs.detach().clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(loss(work(leaf), targets), leaf)
    slope = slope.flatten(1)
    length = slope.norm(dim=1, keepdim=True)
    if flat := [k for k, one in enumerate(length.flatten().tolist()) if not 0 < one < float("inf")]:
        raise BadValue(f"example {flat[0]} of the batch has a loss gradient of length {float(length[flat[0]]):g}")
    up = slope / length
    drawn = torch.randn(up.shape, generator=stream(seed, "input direction"), dtype=torch.float64).to(up)
    aside = drawn - (drawn * up).sum(1, keepdim=True) * up
    aside = aside / aside.norm(dim=1, keepdim=True)

    def at(x: float, y: float) -> float:
        return outcome(work, loss, [(inputs + (x * up + y * aside).view_as(inputs), targets)]).loss

    return Plane(tuple(map(float, xs)), tuple(map(float, ys)), tuple(tuple(at(x, y) for y in ys) for x in xs))


def _flat(coordinates: Coordinates, direction: Direction, like: Tensor) -> Tensor:
    """The direction as a vector of coordinates."""
    if unknown := [name for name in direction if name not in coordinates.places]:
        known = ", ".join(coordinates.places)
        raise BadValue(f"the direction names {unknown[0]!r}, which the model does not have (it has: {known})")
    zeros = {n: torch.zeros(place.shape) for n, place in coordinates.places.items() if n not in direction}
    vector = coordinates.of_state({**zeros, **{name: part.to(like) for name, part in direction.items()}})
    kept = coordinates.dense(vector)
    for name, part in direction.items():
        if outside := int((part.to(kept[name]) != kept[name]).sum()):
            raise BadValue(f"the direction moves {outside:,} masked weights of {name}; only active weights move")
    return vector.to(like)

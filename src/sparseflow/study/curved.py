"""What the Hessian of a finished run says: the ends of its spectrum, its density, the step that is predicted."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import partial
from math import nan
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from sparseflow.core import BadValue, Batch
from sparseflow.measure import Hessian, curvature
from sparseflow.measure.probing import BatchNorm
from sparseflow.sparse import compact, native
from sparseflow.study.parts import BLOCK, PartFile
from sparseflow.study.reload import Loaded

Floats = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]

FORM = 2
"""Of what a part holds; another one is another part. Since 2 it says what it cost."""

MOST_EXACT = 20_000
"""Active weights whose whole matrix is made: 3.2 GB."""

LIGHT = {2: 0.2, 4: 0.5}
"""Density up to which a layer's products are taken compact, by the dimensions of its weight: linear, convolution. In
float64 dense kernels lose more than in a training, torch's convolutions most, which also differentiate by images that
nobody asked about: LeNet-5 at density 0.05, its first layer at 0.4, takes 0.21 s a product of 1,000 images of MNIST,
0.36 s with that layer masked, 0.67 s with all."""


@dataclass(frozen=True)
class Curvature:
    """What to find out.

    Attributes:
        exact: all eigenvalues, by as many products as active weights.
        probes, steps: of quadrature; no probes, no quadrature.
        top, bottom: eigenvalues with vectors at either end.
        batch_norm: "eval" or "train", as of `Hessian`.
        dtype: "float32" or "float64"; eigenvalues near 0 need the second.
        rate: of the predicted step; None for the one that the run began with.
    """

    exact: bool = False
    probes: int = 10
    steps: int = 80
    top: int = 5
    bottom: int = 5
    batch_norm: BatchNorm = "eval"
    dtype: str = "float64"
    rate: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class End:
    """An eigenvalue at an end of the spectrum, |H v - value v|, and the cosine of v with the gradient (nan without)."""

    value: float
    residual: float
    cosine: float


@dataclass(frozen=True)
class Cost:
    """What a part took.

    Attributes:
        products: Hessian-vector products that the times are of. A matrix that was cut has had others before.
        processor: seconds of all threads; other work on the machine hardly changes them.
        wall: seconds.
    """

    products: int
    processor: float
    wall: float


@dataclass(frozen=True)
class Curved:
    """The curvature of one network.

    Attributes:
        size: active weights.
        top, bottom: the outermost first.
        step: predicted from one step of gradient descent at the rate.
        quadrature, eigenvalues: None where not asked for.
        costs: of "ends", and where they were asked for of "quadrature" and "exact", with the eigenvalues of the matrix.
    """

    label: str
    size: int
    loss: float
    examples: int
    top: tuple[End, ...]
    bottom: tuple[End, ...]
    rate: float
    step: curvature.PredictedStep
    quadrature: curvature.Quadrature | None
    eigenvalues: Floats | None
    costs: Mapping[str, Cost]


def curved(
    net: Loaded,
    batches: Sequence[Batch],
    how: Curvature,
    parts: PartFile,
    settings: Mapping[str, Any],
    progress: Progress = lambda done, total: None,
) -> Curved:
    """Find it out, part by part; what the folder has already is not computed again.

    Args:
        batches: of the run's data, in float.
        settings: what the numbers depend on besides the network, the batches and `how`.
        progress: called with the probes and blocks of columns done, and all of them.

    Raises:
        BadValue: for a matrix too large to be had whole, more eigenvalues than weights, a loss that is not finite.
    """
    examples = sum(len(y) for _, y in batches)
    basis = {
        "analysis": "hessian", "form": FORM, **net.identity, "examples": examples,
        "batch_norm": how.batch_norm, "dtype": how.dtype, "seed": how.seed, **settings,
    }  # fmt: skip
    made: list[Hessian] = []

    def hessian() -> Hessian:
        if not made:
            made.append(hessian_of(net, batches, how))
        return made[0]

    def take(part: Mapping[str, Any], make: Callable[[Hessian], dict[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = parts.take({**basis, **part}, lambda: _timed(hessian(), make))
        return found

    if how.exact and net.active > MOST_EXACT:
        raise BadValue(
            f"{net.label} has {net.active:,} active weights; the whole matrix is made of at most {MOST_EXACT:,}: leave "
            "out --exact, quadrature gives the density"
        )
    rate = net.run.spec.optimizer.lr if how.rate is None else how.rate
    columns = -(-net.active // BLOCK) if how.exact else 0
    ends = take({"part": "ends", "top": how.top, "bottom": how.bottom}, lambda h: _ends(h, how))
    costs = {"ends": Cost(*ends["cost"])}
    step = parts.take(
        {**basis, "part": "step", "rate": rate}, lambda: asdict(curvature.predicted_step(hessian(), rate))
    )
    probes = []
    for number in range(how.probes):
        key = {"part": "probe", "steps": how.steps, "probe": number}
        probes.append(take(key, partial(_probe, how, number)))
        progress(number + 1, how.probes + columns)
    if probes:
        costs["quadrature"] = Cost(*(sum(each) for each in zip(*(one["cost"] for one in probes), strict=True)))
    exact = None
    if how.exact:
        key = {**basis, "part": "spectrum"}

        def eigenvalues(whole: Hessian) -> dict[str, Any]:
            def show(done: int, size: int) -> None:
                progress(how.probes + -(-done // BLOCK), how.probes + columns)

            return {"eigenvalues": np.linalg.eigvalsh(parts.matrix(key, whole, show)).tolist()}

        every = take({"part": "spectrum"}, eigenvalues)
        exact, costs["exact"] = np.array(every["eigenvalues"]), Cost(*every["cost"])
        parts.forget(key)
    return Curved(
        net.label,
        net.active,
        ends["loss"],
        examples,
        tuple(End(*one) for one in ends["top"]),
        tuple(End(*one) for one in ends["bottom"]),
        rate,
        curvature.PredictedStep(**step),
        _joined(probes, net.active) if probes else None,
        exact,
        costs,
    )


def _timed(hessian: Hessian, make: Callable[[Hessian], dict[str, Any]]) -> dict[str, Any]:
    """What is made, with its `Cost`; the Hessian and its graphs are there already and do not count."""
    products, processor, wall = hessian.products, time.process_time(), time.perf_counter()
    found = make(hessian)
    cost = Cost(hessian.products - products, time.process_time() - processor, time.perf_counter() - wall)
    return {**found, "cost": astuple(cost)}


def hessian_of(net: Loaded, batches: Sequence[Batch], how: Curvature) -> Hessian:
    """Layers of low density are compact in the Hessian's own copy: the products are the same and cost less."""
    compiled = net.data.device.type == "cpu" and native.available()
    light = [name for name, mask in net.masks.items() if compiled and mask.float().mean() <= LIGHT.get(mask.dim(), 0.0)]
    model = copy.deepcopy(net.model)
    done = compact(model, net.masks, only=light).compacted if light else ()
    rest = {name: mask for name, mask in net.masks.items() if name not in done}
    dtype = getattr(torch, how.dtype)
    return Hessian(model, F.cross_entropy, batches, rest, batch_norm=how.batch_norm, dtype=dtype)


def _ends(hessian: Hessian, how: Curvature) -> dict[str, Any]:
    found = curvature.extremes(hessian, how.top, how.bottom, seed=how.seed)
    flat = not float(hessian.gradient.norm()) > 0

    def pairs(some: curvature.Eigenpairs) -> list[list[float]]:
        count = len(some.values)
        cosines = [nan] * count if flat else curvature.alignment(hessian.gradient, some.vectors).tolist()
        return [list(one) for one in zip(some.values.tolist(), some.residuals.tolist(), cosines, strict=True)]

    ends = {"top": pairs(found.top), "bottom": pairs(found.bottom)}
    return {**ends, "loss": hessian.value}


def _probe(how: Curvature, number: int, hessian: Hessian) -> dict[str, Any]:
    found = curvature.quadrature(hessian, probes=1, first=number, steps=how.steps, seed=how.seed)
    return {"nodes": found.nodes[0].tolist(), "weights": found.weights[0].tolist()}


def _joined(probes: Sequence[Mapping[str, Any]], size: int) -> curvature.Quadrature:
    nodes, weights = (tuple(np.array(one[what]) for one in probes) for what in ("nodes", "weights"))
    return curvature.Quadrature(nodes, weights, size)

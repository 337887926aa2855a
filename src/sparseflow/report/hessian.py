"""The report of Hessians: spectra over the active weights, their ends, and the step they predict (004 Fig. 10, 11)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparseflow.core import BadStore
from sparseflow.measure import curvature
from sparseflow.report.analysed import write_analysis
from sparseflow.report.blocks import Section, Table, Text, write_csv
from sparseflow.report.formats import error_text
from sparseflow.report.hessian_figure import ends_figure, spectrum_figure
from sparseflow.study import Curved, Loaded

Floats = npt.NDArray[np.float64]

HESSIAN_HEADER = (
    "network",
    "active weights",
    "loss",
    "largest eigenvalue",
    "smallest",
    "trace",
    "below 0",
    "products",
    "processor time",
)

_CAPTION = (
    "Over the active weights alone: a masked weight has no row, and biases and the parameters of normalisation, which "
    "are held fixed, have none. An eigenvalue ± its residual |H v - value v|, within "
    "which there is one of H. Trace and the share of eigenvalues below 0 (by more "
    "than a thousandth of the largest |eigenvalue|) are exact where the whole spectrum was computed, else estimates of "
    "quadrature ± their standard errors over probes. Products: Hessian-vector products of the ends + quadrature + the "
    "exact spectrum, and the processor time of each, of the last with the eigenvalues of the matrix."
)


def write_hessian_report(
    folder: Path, found: Sequence[Curved], nets: Sequence[Loaded], settings: Mapping[str, Any]
) -> Path:
    """Write `hessian.csv`, `cost.csv`, `eigenvalues.csv` where exact, `report.html` and `figures/`.

    Returns:
        The path of the page.

    Raises:
        BadStore: if the folder cannot be written.
    """
    try:
        blocks = [ends_figure(found, folder / "figures")]
        if any(one.quadrature is not None or one.eigenvalues is not None for one in found):
            blocks.insert(0, spectrum_figure(found, folder / "figures"))
        write_csv(folder / "hessian.csv", *hessian_rows(found))
        write_csv(folder / "cost.csv", *cost_rows(found))
        if any(one.eigenvalues is not None for one in found):
            rows = [[one.label, k, v] for one in found if one.eigenvalues is not None for k, v in _numbered(one)]
            write_csv(folder / "eigenvalues.csv", ["network", "number", "eigenvalue"], rows)
    except OSError as error:
        raise BadStore(f"cannot write the report into {folder}: {error.strerror}") from None
    table = Table("The Hessian of the loss", _CAPTION, HESSIAN_HEADER, list(hessian_cells(found)))
    sections = [
        Section("The spectrum", [table, *map(Text, findings(found)), *blocks]),
        Section("One step of gradient descent", [step_table(found)]),
    ]
    examples = found[0].examples
    title = f"Hessian: {', '.join(one.label for one in found)}"
    subtitle = f"{examples:,} training examples; batch normalisation in mode {settings['batch_norm']}"
    return write_analysis(folder, title, subtitle, sections, nets, settings)


def hessian_cells(found: Iterable[Curved]) -> Iterable[list[str]]:
    """A row for each network, under `HESSIAN_HEADER`, as text."""
    for one in found:
        trace, error, negative, spread = trace_and_negative(one)
        yield [
            one.label,
            f"{one.size:,}",
            f"{one.loss:.4g}",
            *(
                f"{ends[0].value:.4g} ± {error_text(ends[0].residual)}" if ends else "–"
                for ends in (one.top, one.bottom)
            ),
            _estimate(trace, error, 1.0, ""),
            _estimate(negative, spread, 100.0, " %"),
            " + ".join(f"{taken:,}" for taken in _products(one).values()),
            " + ".join(_time(part, taken, one) for part, taken in _products(one).items()),
        ]


def _products(one: Curved) -> dict[str, int]:
    """Of the ends, quadrature and the exact spectrum: all that were taken."""
    return {
        "ends": one.costs["ends"].products,
        "quadrature": one.quadrature.products if one.quadrature else 0,
        "exact": one.size if one.eigenvalues is not None else 0,
    }


def _time(part: str, taken: int, one: Curved) -> str:
    if not taken:
        return "0"
    cost = one.costs[part]
    whole = "" if cost.products == taken else f" (of {cost.products:,} products, the others before a cut)"
    return f"{cost.processor:.3g} s{whole}"


def _estimate(value: float, error: float, unit: float, mark: str) -> str:
    if isnan(value):
        return "–"
    return f"{unit * value:.4g}" + ("" if isnan(error) or error == 0 else f" ± {error_text(unit * error)}") + mark


def trace_and_negative(one: Curved) -> tuple[float, float, float, float]:
    """Trace and its error, share of eigenvalues clearly below 0 and its error; 0 errors where exact, nan where unknown.

    "Clearly" is by a thousandth of the largest |eigenvalue|, which rounding cannot reach.
    """
    edge = -1e-3 * max((abs(end.value) for end in (*one.top, *one.bottom)), default=0.0)
    if one.eigenvalues is not None:
        return float(one.eigenvalues.sum()), 0.0, float((one.eigenvalues < edge).mean()), 0.0
    if one.quadrature is None:
        return (float("nan"),) * 4
    trace = one.quadrature.trace()
    negative = one.quadrature.trace(lambda t: (t < edge).astype(np.float64))
    return trace.value, trace.error, negative.value / one.size, negative.error / one.size


def findings(found: Sequence[Curved]) -> list[str]:
    """What the two spectra of one network have to do with each other."""
    words = []
    for one in found:
        if one.quadrature is None or one.eigenvalues is None:
            continue
        moments = []
        for name, power in (("tr H", 1), ("tr H²", 2)):
            mean = one.quadrature.trace(partial(_power, power))
            exact = float((one.eigenvalues**power).sum())
            off = "" if isnan(mean.error) else f", {abs(mean.value - exact) / mean.error:.1f} standard errors away"
            moments.append(f"its {name} is {mean.value:.5g}, the exact one {exact:.5g}{off}")
        exactly = curvature.density(one.eigenvalues)
        apart = curvature.distance(one.quadrature.density(at=exactly.at, width=exactly.width), exactly)
        words.append(
            f"{one.label}: quadrature took {one.quadrature.products:,} products where the exact spectrum took "
            f"{one.size:,}; {'; '.join(moments)}; smoothed by Gaussians of width {exactly.width:.3g} (a hundredth of "
            f"the range) the two densities are {apart:.2g} apart in L1, where 2 would be no overlap."
        )
    return words


def _power(power: int, of: Floats) -> Floats:
    found: Floats = of**power
    return found


def step_table(found: Sequence[Curved]) -> Table:
    """004 eq. 27-28, and how much of the gradient lies along the ends of the spectrum."""
    rows = []
    for one in found:
        step = one.step
        rows.append(
            [
                one.label,
                f"{one.rate:g}",
                f"{step.squared_gradient:.4g}",
                f"{step.curvature:.4g}",
                f"{step.first:.4g}",
                f"{step.second:.4g}",
                f"{step.change:.4g}",
                *(_share(ends) for ends in (one.top, one.bottom)),
            ]
        )
    caption = (
        "The change of the loss that one step of plain gradient descent on the active weights would make: to first "
        "order, -rate g'g (004 eq. 27); what the curvature adds, rate² / 2 g'Hg (eq. 28); their sum. A positive sum "
        "says that the rate is too large for these examples. Shares: squared cosines of the gradient with the "
        "eigenvectors at an end, added up."
    )
    header = ["network", "rate", "g'g", "g'Hg / g'g", "first order", "curvature", "sum", "at the top", "at the bottom"]
    return Table("Predicted step and alignment", caption, header, rows)


def _share(ends: Sequence[Any]) -> str:
    total = sum(end.cosine**2 for end in ends)
    return "–" if not ends or isnan(total) else f"{100 * total:.3g} % ({len(ends)})"


def cost_rows(found: Sequence[Curved]) -> tuple[list[str], list[list[object]]]:
    """Header and rows of `cost.csv`, a row for each part of each network."""
    rows: list[list[object]] = [
        [one.label, one.size, part, _products(one)[part], cost.products, cost.processor, cost.wall]
        for one in found
        for part, cost in one.costs.items()
    ]
    return ["network", "size", "part", "products", "timed", "processor_seconds", "wall_seconds"], rows


def hessian_rows(found: Sequence[Curved]) -> tuple[list[str], list[list[object]]]:
    """Header and rows of `hessian.csv`, in long form: network, quantity, number, value, error."""
    rows: list[list[object]] = []
    for one in found:
        trace, error, negative, spread = trace_and_negative(one)
        step = one.step
        scalars: dict[str, tuple[float, float | None]] = {
            "active_weights": (one.size, None),
            "loss": (one.loss, None),
            "trace": (trace, error),
            "share_below_0": (negative, spread),
            "squared_gradient": (step.squared_gradient, None),
            "gradient_curvature": (step.curvature, None),
            "rate": (one.rate, None),
            "predicted_first": (step.first, None),
            "predicted_second": (step.second, None),
            "predicted_change": (step.change, None),
        }
        rows += [[one.label, name, None, value, wrong] for name, (value, wrong) in scalars.items()]
        for end, pairs in (("top", one.top), ("bottom", one.bottom)):
            rows += [[one.label, f"{end}_eigenvalue", k, pair.value, pair.residual] for k, pair in enumerate(pairs, 1)]
            rows += [[one.label, f"{end}_cosine", k, pair.cosine, None] for k, pair in enumerate(pairs, 1)]
    return ["network", "quantity", "number", "value", "error"], rows


def _numbered(one: Curved) -> Iterable[tuple[int, float]]:
    assert one.eigenvalues is not None
    return enumerate(one.eigenvalues.tolist(), 1)

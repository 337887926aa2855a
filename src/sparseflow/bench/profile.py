"""Where the time of a step goes, by kind of operation, from torch's profiler."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch.profiler import ProfilerActivity, profile

from sparseflow.bench.networks import Step, StepCase, make_step
from sparseflow.bench.rivals import Missing, label
from sparseflow.bench.timing import thread_limit, threads_text
from sparseflow.core import check_positive

KINDS = (
    ("masking", ("masked_fill", "bitwise_and")),
    ("convolution", ("conv2d", "convolution")),
    ("linear", ("linear", "addmm", "mm", "matmul")),
    ("batch norm", ("batch_norm", "batchnorm")),
    ("copies", ("copy_", "clone", "contiguous", "_to_copy", "reshape")),
)
"""(kind, parts of operator names), first match first; then `ELEMENTWISE`, then "rest"."""

ELEMENTWISE = (
    "add", "sub", "mul", "div", "relu", "threshold", "elu", "silu", "sigmoid", "where", "fill_", "zero_", "pad", "sum",
    "mean", "softmax", "nll_loss", "slice_backward",
)  # fmt: skip

OURS = {
    "sparse products": ("mm", "mtm", "sd", "both"),
    "batch norm": ("normalise",),
    "copies": ("turn",),
}
"""Kind -> the names of sparseflow's own autograd functions and operators."""


@dataclass(frozen=True)
class Share:
    """The time that one kind of operation takes in one step of one implementation."""

    case: str
    implementation: str
    kind: str
    ms: float
    share: float
    """Of the step, 0 to 1."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def profile_step(
    case: StepCase,
    names: Sequence[str] = ("compact", "masked"),
    *,
    steps: int = 5,
    threads: int = 1,
    report: Callable[[str], None] = lambda what: None,
    note: Callable[[str], None] = lambda what: None,
) -> list[Share]:
    """Shares of time per kind of operation, the largest first. The profiler itself slows small operations.

    Args:
        names: as in `networks.make_step`; images are contiguous.
        steps: how many are profiled, after two that are not.
        note: told of each implementation that is not here.

    Raises:
        BadValue: for less than one step.
    """
    check_positive("steps", steps)
    rows = []
    for name in names:
        report(f"{case.title}: profiling {name}")
        try:
            step = make_step(name, case)
        except Missing as missing:
            note(str(missing))
            continue
        with thread_limit(threads):
            spent = _milliseconds(step, steps)
        total = sum(spent.values())
        title = f"{case.title}, {threads_text(threads)}"
        for kind, ms in sorted(spent.items(), key=lambda item: -item[1]):
            rows.append(Share(title, label(name), kind, ms, ms / total))
    return rows


def _milliseconds(step: Step, steps: int) -> dict[str, float]:
    """Kind -> milliseconds per step: every operator's own time, without that of the operators it calls."""
    for _ in range(2):
        step()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(steps):
            step()
    spent: dict[str, float] = defaultdict(float)
    events = profiler.events()
    assert events is not None
    for event in events:
        spent[_kind_of(event)] += event.self_cpu_time_total / 1e3 / steps
    return dict(spent)


def _kind_of(event: Any) -> str:
    """The kind of the outermost operator that names one: a copy inside a convolution is the convolution's."""
    chain = [event]
    while chain[-1].cpu_parent is not None:
        chain.append(chain[-1].cpu_parent)
    names = [str(e.name) for e in reversed(chain)]
    kinds = [kind for kind in map(operator_kind, names) if kind]
    if "masking" in kinds:  # done by hooks, some of them inside the optimiser's step
        return "masking"
    return kinds[0] if kinds else "rest"


def operator_kind(name: str) -> str:
    """The kind of an operator or a range by its name; "" if that says nothing."""
    if name.startswith("Optimizer."):
        return "optimiser"
    if name.startswith("autograd::engine"):
        # "autograd::engine::evaluate_function: ReluBackward0": the operators below it say what they are.
        return ""
    base = name.rpartition("::")[2].lower()
    if name.startswith(("_", "sparseflow::")):
        own = base.strip("_").removesuffix("backward")
        for kind, names in OURS.items():
            if own in names:
                return kind
    for kind, parts in KINDS:
        if any(part in base for part in parts):
            return kind
    return "elementwise" if any(part in base for part in ELEMENTWISE) else ""

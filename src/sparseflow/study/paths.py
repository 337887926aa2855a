"""Straight paths from finished runs, at their starts and ends, to another one (004 Fig. 5c, 5f, 9c)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch.nn import functional as F

from sparseflow.core import BadValue
from sparseflow.measure import interpolate
from sparseflow.measure.interpolate import Path
from sparseflow.measure.probing import normalisations
from sparseflow.study.parts import PartFile
from sparseflow.study.reload import Loaded, Which
from sparseflow.study.similar import check_alike

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Ways:
    """How to go: where to look, on which examples, and what becomes of batch normalisation's statistics."""

    alphas: tuple[float, ...]
    which: Which = "train"
    examples: int = 10_000
    batch_norm: Literal["recompute", "keep"] = "keep"


@dataclass(frozen=True)
class Way:
    """The path from a network (alpha 0) to the target (alpha 1)."""

    label: str
    group: str
    moment: str
    examples: int
    path: Path

    @property
    def barrier(self) -> float | None:
        """As of `Path`; None for a path without its two ends."""
        ends = {0.0, 1.0} <= set(self.path.alphas)
        return self.path.barrier if ends else None


def ways(
    nets: Sequence[tuple[str, Loaded]],
    target: Loaded,
    how: Ways,
    parts: PartFile,
    settings: Mapping[str, Any],
    progress: Progress = lambda done, total: None,
) -> list[Way]:
    """The path of each network; what the folder has already is not walked again.

    Examples are the target's: those of its training or test split.

    Args:
        nets: (group, network) pairs.
        settings: what the numbers depend on besides the networks and `how`.

    Raises:
        BadValue: for networks of different architectures or data, or statistics to recompute that there are not.
    """
    check_alike([net for _, net in nets], target)
    anew = how.batch_norm == "recompute"
    if anew and not normalisations(target.model):
        raise BadValue(f"{target.label} has no batch normalisation whose statistics could be recomputed")
    batches = target.sample(how.which, how.examples)
    examples = sum(len(y) for _, y in batches)
    statistics = target.sample("train", how.examples) if anew else None
    found = []
    for number, (group, net) in enumerate(nets, 1):
        key = {
            "analysis": "interpolate", "from": net.identity, "to": target.identity, "alphas": list(how.alphas),
            "split": how.which, "examples": how.examples, "batch_norm": how.batch_norm, **settings,
        }  # fmt: skip

        def walk(first: Loaded = net) -> dict[str, Any]:
            states = first.model.state_dict(), target.model.state_dict()
            path = interpolate(target.model, *states, F.cross_entropy, batches, how.alphas, statistics=statistics)
            return {"losses": path.losses, "accuracies": path.accuracies}

        one = parts.take(key, walk)
        path = Path(how.alphas, tuple(one["losses"]), tuple(one["accuracies"]))
        found.append(Way(net.label, group, str(net.run.at), examples, path))
        progress(number, len(nets))
    return found

"""Tables of what searches over layer densities found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from statistics import fmean

from sparseflow.reproduce.measured import QUANTITY, Measured, Place, agrees, over_runs
from sparseflow.reproduce.readers.registry import readers
from sparseflow.reproduce.source import DENSE, SEARCHED_BY, Source
from sparseflow.search import Found, Tried
from sparseflow.study import ArmResult

_METHOD = "Method"
_DENSE = {SEARCHED_BY: DENSE, _METHOD: "Dense"}
"""Axis -> what a table calls the network that no search found."""


@dataclass(frozen=True)
class _Ended:
    """A search that has ended.

    Attributes:
        after: the runs that told of it.
    """

    source: Source
    found: Found
    winner: Tried
    after: Mapping[str, ArmResult]

    def accuracies(self, arm: str) -> dict[str, float]:
        """Run -> its test accuracy in per cent, diverged runs as guessing."""
        result = self.after.get(arm)
        return {m.run: 100 * m.accuracy for m in result.counted} if result is not None else {}

    def differences(self) -> list[float]:
        """Of winner and dense, in points, seed by seed."""
        members = [self.after[arm].members for arm in ("winner", "dense") if arm in self.after]
        pairs = zip(*members, strict=True) if len(members) == 2 else ()
        return [100 * (one.accuracy - other.accuracy) for one, other in pairs if one.counts and other.counts]


@readers.add("search", cite="001 Tables 4.2 to 4.4, B.1 and B.2")
def search(sources: Sequence[Source], place: Place) -> Measured | None:
    """What the best of the searches of a cell found, or the dense network beside it.

    As in the paper, an accuracy is the score of the one run that won, and the better of the two representations (one
    density for all layers, one for each) stands for both. What other seeds say of it is the cell's hint.
    """
    if place.get("Source") == "quoted":
        return None
    quantity = _QUANTITIES[place[QUANTITY]]
    ended = _ended(sources, place)
    if not ended:
        return None
    if any(place.get(axis) == label for axis, label in _DENSE.items()):
        return quantity.dense(ended)
    return quantity.found(max(ended, key=lambda one: (one.winner.score, -one.winner.active)), ended)


def _ended(sources: Sequence[Source], place: Place) -> list[_Ended]:
    """The searches that a cell is about, of those that have ended."""
    dense = any(place.get(axis) == label for axis, label in _DENSE.items())
    wanted = {axis: label for axis, label in place.items() if not (dense and axis in _DENSE)}
    found = []
    for source in sources:
        for quest, one, after in source.searches:
            labels = source.search_labels(quest)
            meant = agrees(labels, wanted)
            if meant and one.ended and (best := one.winner) is not None:
                found.append(_Ended(source, one, best, {result.arm.name: result for result in after}))
    return found


@dataclass(frozen=True)
class _Quantity:
    """How a column is read: of the best search (beside all of the cell), and of the dense network."""

    found: Callable[[_Ended, Sequence[_Ended]], Measured | None]
    dense: Callable[[Sequence[_Ended]], Measured | None]


def _accuracy(best: _Ended, ended: Sequence[_Ended]) -> Measured:
    return Measured(100 * best.winner.score, hint=_again("winner", best.accuracies("winner")))


def _again(arm: str, accuracies: Mapping[str, float]) -> str:
    told = over_runs(list(accuracies.values()))
    if told is None:
        return ""
    spread = f" ± {told.spread:.2f}" if told.n > 1 else ""
    return f"{arm} on seeds that the search has not seen: {told.value:.2f}{spread} ({told.n})"


def _dense_accuracies(ended: Sequence[_Ended]) -> dict[str, float]:
    """Each run once: searches of one network share the dense runs."""
    return {run: value for one in ended for run, value in one.accuracies("dense").items()}


def _dense_accuracy(ended: Sequence[_Ended]) -> Measured | None:
    return over_runs(list(_dense_accuracies(ended).values()))


def _gain(best: _Ended, ended: Sequence[_Ended]) -> Measured | None:
    dense, again = best.accuracies("dense"), best.accuracies("winner")
    if not dense:
        return None
    return Measured(
        100 * best.winner.score - fmean(dense.values()),
        hint=f"{_again('winner', again)}; {_again('dense', dense)}",
        against=best.differences(),
    )


def _weights(best: _Ended, ended: Sequence[_Ended]) -> Measured:
    return Measured(best.winner.active / 1e6)


def _dense_weights(ended: Sequence[_Ended]) -> Measured | None:
    runs = [(one.source, run) for one in ended for run in one.accuracies("dense")]
    return Measured(sum(runs[0][0].results[runs[0][1]]["active"].values()) / 1e6) if runs else None


def _parameters(best: _Ended, ended: Sequence[_Ended]) -> Measured:
    """Active weights, and whatever else is learned."""
    others = int(best.source.results[best.winner.run]["others"])
    return Measured((best.winner.active + others) / 1e6, hint=f"{others:,} of them are no weights")


def _dense_parameters(ended: Sequence[_Ended]) -> Measured | None:
    weights = _dense_weights(ended)
    if weights is None:
        return None
    run = next(run for one in ended for run in one.accuracies("dense"))
    return Measured(weights.value + ended[0].source.results[run]["others"] / 1e6)


def _share(best: _Ended, ended: Sequence[_Ended]) -> Measured:
    return Measured(100 * best.found.share(best.winner))


def _sparsity(best: _Ended, ended: Sequence[_Ended]) -> Measured:
    return Measured(100 - 100 * best.found.share(best.winner))


def _vector(best: _Ended, ended: Sequence[_Ended]) -> Measured:
    return Measured(nan, text=f"[{', '.join(f'{density:.3g}' for density in best.winner.vector)}]")


def _known(measured: Measured) -> Callable[[Sequence[_Ended]], Measured]:
    """Of the dense network, what nobody need measure."""
    return lambda ended: measured


_QUANTITIES: Mapping[str, _Quantity] = {
    "Accuracy": _Quantity(_accuracy, _dense_accuracy),
    "Test Accuracy": _Quantity(_accuracy, _dense_accuracy),
    "Δ Accuracy": _Quantity(_gain, _known(Measured(0.0))),
    "# Weights (M)": _Quantity(_weights, _dense_weights),
    "# Params (M)": _Quantity(_parameters, _dense_parameters),
    "% Dense": _Quantity(_share, _known(Measured(100.0))),
    "Sparsity": _Quantity(_sparsity, _known(Measured(0.0))),
    "Density": _Quantity(_vector, _known(Measured(nan, text="[1.0]"))),
}

"""How alike finished runs are: as points in the space of weights, and in what they answer (004 Fig. 5, Tables 2, 6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import numpy.typing as npt
from torch import Tensor

from sparseflow.core import BadValue
from sparseflow.masks import overlap, total_overlap
from sparseflow.measure import answers, similarity
from sparseflow.measure.similarity import Comparison, Over
from sparseflow.stats import Summary, summary
from sparseflow.study.finished import Finished, Group
from sparseflow.study.reload import Loaded

Floats = npt.NDArray[np.float64]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Place:
    """A network as a point of the space that the reference's mask leaves.

    Attributes:
        moment: "start", "final", or a step.
        x, y: in the plane of the embedding.
        distance: L2, to the reference.
    """

    label: str
    group: str
    moment: str
    x: float
    y: float
    distance: float


@dataclass(frozen=True)
class Row:
    """A group of networks among themselves and against the reference, which is left out where it is one of them.

    Attributes:
        start, final: L2 distances to the reference; None without such networks.
        overlap: Jaccard indices of the masks with the reference's; None where nothing is masked.
    """

    group: str
    networks: int
    comparison: Comparison
    start: Summary | None
    final: Summary | None
    overlap: Summary | None


@dataclass(frozen=True)
class Member:
    """A network and what it answers; its disagreement is with the reference, None for the reference itself."""

    label: str
    group: str
    seed: int
    accuracy: float
    disagreement: float | None


@dataclass(frozen=True)
class Contrast:
    """How the answers of two groups differ, the first's minus the second's, with these networks given.

    Errors are standard errors over the examples, on which the groups are paired.

    Attributes:
        gain: accuracy of the ensemble beyond the mean accuracy of its members.
        disagreement: mean over pairs within a group.
    """

    first: str
    second: str
    gain: float
    gain_error: float
    disagreement: float
    disagreement_error: float


@dataclass(frozen=True)
class Likeness:
    """Of groups of networks, with each other and with a reference.

    Attributes:
        places: of every network, at its start too where that is asked for.
        between: (places, places) L2 distances.
        examples: that were answered.
        members: of the groups, one by one.
        contrasts: of every two groups of several networks.
    """

    reference: str
    examples: int
    rows: tuple[Row, ...]
    places: tuple[Place, ...]
    between: Floats
    members: tuple[Member, ...]
    contrasts: tuple[Contrast, ...]


def likeness(
    groups: Sequence[Group],
    nets: Mapping[str, Loaded],
    starts: Sequence[Loaded],
    reference: str,
    examples: int,
    over: Over = "mean",
    progress: Progress = lambda done, total: None,
) -> Likeness:
    """Compare them on test examples.

    Args:
        nets: label -> network, of all groups and the reference.
        starts: the same runs before training, those that are to be embedded too.
        reference: the label of the network that all are compared with, such as a pruned solution.
        examples: of the test set, at most.
        over: samples are averaged ("mean") or added ("sum") in KL and JSD.

    Raises:
        BadValue: for networks of different architectures or data.
    """
    one = nets[reference]
    check_alike([*nets.values(), *starts], one)
    logits: dict[str, Tensor] = {}
    for number, (label, net) in enumerate(nets.items(), 1):
        logits[label], targets = answers(net.model, net.sample("test", examples))
        progress(number, len(nets))
    every = list({net.label: net for net in [*nets.values(), *starts]}.values())
    at = similarity.points(one.model, [net.model.state_dict() for net in every], one.masks)
    between = similarity.distances(at)
    plane = similarity.embed(between)
    of_group = {run.label: group.label for group in groups for run in group.runs}
    to_reference = between[[net.label for net in every].index(reference)].tolist()
    places = []
    for net, (x, y), distance in zip(every, plane.tolist(), to_reference, strict=True):
        group = of_group.get(net.label) or of_group.get(net.run.moved("final").label, "reference")
        places.append(Place(net.label, group, str(net.run.at), x, y, distance))
    rows = tuple(_row(group, nets, logits, targets, reference, places, over) for group in groups)
    members = tuple(_member(run, group, logits, targets, reference) for group in groups for run in group.runs)
    answered = {group.label: [logits[run.label] for run in group.runs] for group in groups if len(group.runs) > 1}
    contrasts = tuple(
        _contrast(one, other, answered[one], answered[other], targets) for one, other in combinations(answered, 2)
    )
    return Likeness(reference, len(targets), rows, tuple(places), between.numpy(), members, contrasts)


def _member(run: Finished, group: Group, logits: Mapping[str, Tensor], targets: Tensor, reference: str) -> Member:
    own = logits[run.label]
    apart = None if run.label == reference else similarity.disagreement(own, logits[reference])
    return Member(run.label, group.label, run.spec.seed, similarity.accuracy(own, targets), apart)


def _contrast(first: str, second: str, one: Sequence[Tensor], other: Sequence[Tensor], targets: Tensor) -> Contrast:
    gain = similarity.gains(one, targets) - similarity.gains(other, targets)
    apart = similarity.disagreements(one) - similarity.disagreements(other)
    root = len(targets) ** 0.5
    return Contrast(
        first,
        second,
        float(gain.mean()),
        float(gain.std()) / root,
        float(apart.mean()),
        float(apart.std()) / root,
    )


def _row(
    group: Group,
    nets: Mapping[str, Loaded],
    logits: Mapping[str, Tensor],
    targets: Tensor,
    reference: str,
    places: Sequence[Place],
    over: Over,
) -> Row:
    own = [run.label for run in group.runs]
    others = [label for label in own if label != reference]
    found = similarity.compare([logits[label] for label in own], targets, over=over)
    if others:
        against = similarity.compare([logits[label] for label in others], targets, logits[reference], over=over)
        found = replace(
            found,
            reference_disagreement=against.reference_disagreement,
            to_reference=against.to_reference,
            from_reference=against.from_reference,
            reference_jsd=against.reference_jsd,
        )
    seen = [place for place in places if place.group == group.label and place.label != reference]
    # Moments on the way count as beginnings.
    start, final = ([p.distance for p in seen if (p.moment == "final") == late] for late in (False, True))
    masks = [(nets[label].masks, nets[reference].masks) for label in others]
    shared = [total_overlap(overlap(a, b)).jaccard for a, b in masks if a or b]
    return Row(group.label, len(own), found, _summary(start), _summary(final), _summary(shared))


def _summary(values: Sequence[float]) -> Summary | None:
    return summary(values) if values else None


def check_alike(nets: Sequence[Loaded], reference: Loaded) -> None:
    """Raises BadValue unless all networks have the reference's architecture and data."""
    wanted = {name: tuple(value.shape) for name, value in reference.model.state_dict().items()}
    for net in nets:
        own = {name: tuple(value.shape) for name, value in net.model.state_dict().items()}
        if own != wanted:
            name = next(name for name in (*own, *wanted) if own.get(name) != wanted.get(name))
            raise BadValue(
                f"{net.label} is of another architecture than {reference.label} ({name}: {own.get(name, 'none')} and "
                f"{wanted.get(name, 'none')}); name networks of one"
            )
        if net.data.digest != reference.data.digest:
            raise BadValue(
                f"{net.label} was trained on {net.data.name} (digest {net.data.digest}), {reference.label} on "
                f"{reference.data.name} (digest {reference.data.digest}); name networks of the same data"
            )

"""The section of a study of arms that compares its networks with one of them (004 sec. 4.3, Fig. 5, Tables 2 and 6)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, fields
from statistics import fmean

from sparseflow.report.arms_paths import HEIGHT_HEADER, height_cells, path_figure
from sparseflow.report.blocks import Block, Table, Text, Value, write_csv
from sparseflow.report.registry import Study
from sparseflow.report.similarity import (
    ANSWERS,
    DISTANCE_HEADER,
    DIVERGENCE_HEADER,
    SIMILARITY_HEADER,
    WEIGHTS,
    distance_cells,
    divergence_cells,
    divergences,
    similarity_cells,
    similarity_rows,
)
from sparseflow.report.similarity_figures import distance_figure, embedding_figure
from sparseflow.study import Arm, ArmsSpec, Claim, FactsOf, Likened, Results, judge, likened, likeness_asked

CLAIM_HEADER = ("claim", "verdict", "ticket", "compared with", "rule", "decides")


def blocks(study: Study, spec: ArmsSpec, arms: Sequence[Arm], results: Results, facts: FactsOf) -> list[Block]:
    """Tables, figures and CSV files of what was found; why there is nothing yet, where that is so; nothing unasked."""
    wanted = spec.likeness
    if wanted is None:
        return []
    what = likeness_asked(spec, arms, results, facts, study.runs)
    if what.missing:
        return [Text(f"{len(what.missing)} runs that are compared have not ended yet ({', '.join(what.missing)}).")]
    if what.reference is None:
        return [Text(f"The reference diverged ({', '.join(what.diverged)}): there is nothing to compare with.")]
    found = likened(spec, what, results, study.runs)
    if found is None:
        return [
            Text("All runs have ended, but they have not been compared yet: the same `sparseflow compare` does it.")
        ]
    claims = judge(found, wanted.claims) if wanted.claims else []
    _write(study, found, claims)
    alike = found.likeness
    one = what.reference
    accuracy = "–" if one.accuracy is None else f"{100 * one.accuracy:.2f} %"
    first = [one.label, "1", accuracy, "–", "–", "–"]
    away = f" Left out, for they diverged: {', '.join(what.diverged)}." if what.diverged else ""
    shown: list[Block] = [
        Text(
            f"The networks of each arm among themselves and against {one.label}, on {alike.examples:,} test examples."
            + away
        )
    ]
    if wanted.claims:
        shown.append(_claim_table(claims, wanted.claims.alpha, wanted.claims.barrier))
    return [
        *shown,
        Table("Ensembles and disagreement", ANSWERS, SIMILARITY_HEADER, [first, *similarity_cells(alike)]),
        Table("Divergences", divergences(wanted.over), DIVERGENCE_HEADER, list(divergence_cells(alike))),
        Table("Distances of weights", WEIGHTS, DISTANCE_HEADER, list(distance_cells(alike))),
        embedding_figure(alike, study.figures),
        distance_figure(alike, study.figures),
        path_figure(found, wanted.batch_norm, study.figures),
        Table("Barriers", _barriers(found), HEIGHT_HEADER, list(height_cells(found)), labels=3),
    ]


def _claim_table(claims: Sequence[Claim], alpha: float, barrier: float) -> Table:
    caption = (
        f"004 sec. 4.3, judged by these numbers alone; tests are one-sided, limits of {100 * (1 - alpha):g} % to the "
        "claimed side, and none is corrected for the number of claims. Seeds: exact Wilcoxon signed-rank test over the "
        f"seeds that both arms have, which share the data order; seen if p is at most {alpha:g} (with five seeds: all "
        "agree). Draws: a start counts once, however many runs share it; seen if the ticket's lies below where another "
        "fresh draw would lie (Student's t, from the fresh starts of the study). Height: training loss above the "
        f"higher end; no barrier if the upper limit of the mean is below {barrier:g}, a barrier if the lower one is "
        "above it (Student's t over seeds). Examples: a difference on the test examples, seen if its upper limit is "
        "below 0; it says nothing of other networks than these. Nearness, barriers and disagreement are to the "
        "reference, but for that of an arm with itself. Not seen is not shown to be wrong. Values are mean ± standard "
        "deviation (n)."
    )
    rows: list[list[Value | str]] = [
        [c.words, Value(c.verdict, colour=_COLOURS[c.verdict]), c.ticket or "–", c.other or "–", c.rule, c.decides]
        for c in claims
    ]
    return Table("Claims about tickets", caption, CLAIM_HEADER, rows, words=True)


_COLOURS = {"seen": "#c6e7cf", "not seen": "#f8d5cf", "not tested": ""}


def _barriers(found: Likened) -> str:
    train, test = (found.ways(split)[0].examples for split in ("train", "test"))
    return (
        f"Straight paths to the reference, on {train:,} training and {test:,} test examples; mean ± standard "
        "deviation. Height: the most by which the loss lies above the higher end; barrier: above the line between the "
        "ends' losses (Frankle et al. 2020). Starts that several runs share are one path, counted for each."
    )


def _write(study: Study, found: Likened, claims: Sequence[Claim]) -> None:
    alike = found.likeness
    write_csv(study.folder / "likeness.csv", *similarity_rows(alike))
    write_csv(study.folder / "likeness-networks.csv", NETWORKS, list(_networks(found)))
    labels = [f"{place.label}" for place in alike.places]
    between = [[label, *map(float, row)] for label, row in zip(labels, alike.between, strict=True)]
    write_csv(study.folder / "likeness-distances.csv", ["network", *labels], between)
    contrasts = alike.contrasts
    header = ["first", "second", "gain", "gain_error", "disagreement", "disagreement_error"]
    write_csv(study.folder / "likeness-contrasts.csv", header, [astuple(c) for c in contrasts])
    write_csv(study.folder / "likeness-paths.csv", PATHS, list(_paths(found)))
    if claims:
        names = [field.name for field in fields(Claim)]
        write_csv(study.folder / "claims.csv", names, [astuple(claim) for claim in claims])


NETWORKS = ("network", "group", "seed", "accuracy", "disagreement", "start_distance", "final_distance", "start_loss",
            "train_height", "train_barrier", "test_height", "test_barrier")  # fmt: skip
PATHS = ("network", "group", "moment", "split", "alpha", "loss", "accuracy")


def _networks(found: Likened) -> Iterator[list[object]]:
    distance = {place.label: place.distance for place in found.likeness.places}
    way = {(split, w.label): w.path for split in ("train", "test") for w in found.ways(split)}
    for member in found.likeness.members:
        start, path = f"{member.label}#start", way.get(("train", member.label))
        begun = way.get(("train", start))
        yield [
            *astuple(member),
            distance.get(start),
            distance[member.label],
            fmean(begun.losses) if begun else None,
            *([path.height, path.barrier] if path else [None, None]),
            *([p.height, p.barrier] if (p := way.get(("test", member.label))) else [None, None]),
        ]


def _paths(found: Likened) -> Iterable[list[object]]:
    for split in ("train", "test"):
        for way in found.ways(split):
            accuracies = way.path.accuracies or (None,) * len(way.path.alphas)
            for point in zip(way.path.alphas, way.path.losses, accuracies, strict=True):
                yield [way.label, way.group, way.moment, split, *point]

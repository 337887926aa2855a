"""The report of likeness: distances and their embedding, ensembles, disagreement (004 Fig. 5a,b,d,e; Tables 2, 6)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from math import isnan, log
from pathlib import Path
from typing import Any

from sparseflow.core import BadStore
from sparseflow.measure.similarity import Comparison, Over
from sparseflow.report.analysed import write_analysis
from sparseflow.report.blocks import Section, Table, write_csv
from sparseflow.report.similarity_figures import distance_figure, embedding_figure
from sparseflow.stats import Summary
from sparseflow.study import Likeness, LikenessRow, Loaded

SIMILARITY_HEADER = (
    "group",
    "n",
    "test accuracy",
    "ensemble",
    "disagreement",
    "disagreement with reference",
)

DIVERGENCE_HEADER = ("group", "n", "KL", "KL to reference", "KL from reference", "JSD", "JSD with reference")

DISTANCE_HEADER = ("group", "n", "start to reference", "end to reference", "mask overlap")


def write_similarity_report(folder: Path, found: Likeness, nets: Sequence[Loaded], settings: Mapping[str, Any]) -> Path:
    """Write `similarity.csv`, `distances.csv`, `report.html` and `figures/`; returns the path of the page.

    Raises:
        BadStore: if the folder cannot be written.
    """
    labels = [place.label for place in found.places]
    rows = [[label, *map(float, row)] for label, row in zip(labels, found.between, strict=True)]
    try:
        write_csv(folder / "similarity.csv", *similarity_rows(found))
        write_csv(folder / "distances.csv", ["network", *labels], rows)
        figures = [embedding_figure(found, folder / "figures"), distance_figure(found, folder / "figures")]
    except OSError as error:
        raise BadStore(f"cannot write the report into {folder}: {error.strerror}") from None
    answers = Table("Ensembles and disagreement", ANSWERS, SIMILARITY_HEADER, list(similarity_cells(found)))
    apart = Table("Divergences", divergences(settings["over"]), DIVERGENCE_HEADER, list(divergence_cells(found)))
    weights = Table("Distances of weights", WEIGHTS, DISTANCE_HEADER, list(distance_cells(found)))
    sections = [
        Section("What they answer", [answers, apart]),
        Section("Where they lie", [weights, *figures]),
    ]
    subtitle = f"{found.examples:,} test examples; reference {found.reference}"
    return write_analysis(folder, f"Similarity with {found.reference}", subtitle, sections, nets, settings)


ANSWERS = (
    "Mean ± standard deviation over networks, or over pairs of them (004 Table 2). Ensemble: of the mean of the "
    "group's softmax probabilities. Disagreement: share of examples with different predictions. The reference itself "
    "is left out where its group is compared with it."
)


def divergences(over: Over) -> str:
    """What the table of divergences says of itself."""
    unit = "mean over" if over == "mean" else "sum over"
    return (
        f"004 Table 6, in nats, {unit} examples: KL over ordered pairs, JSD of the whole group; KL to the reference is "
        f"KL(network ‖ reference). Per example JSD is at most {log(2):.3f} for two networks, {log(5):.3f} for five."
    )


WEIGHTS = (
    "L2 over the active weights of the reference's mask, biases and normalisation left out (004 Fig. 5b, e). Mask "
    "overlap: active in both over active in either, 1 for the same mask."
)


def similarity_cells(found: Likeness) -> Iterable[list[str]]:
    """A row for each group, under `SIMILARITY_HEADER`, as text."""
    for row in found.rows:
        c = row.comparison
        yield [
            row.group,
            str(row.networks),
            _text(c.accuracy, 100.0, 2, " %"),
            f"{100 * c.ensemble:.2f} %" if row.networks > 1 else "–",
            *(_text(of, 1.0, 4) for of in (c.disagreement, c.reference_disagreement)),
        ]


def divergence_cells(found: Likeness) -> Iterable[list[str]]:
    """A row for each group, under `DIVERGENCE_HEADER`, as text."""
    for row in found.rows:
        c = row.comparison
        yield [
            row.group,
            str(row.networks),
            *(_text(of, 1.0, 4) for of in (c.kl, c.to_reference, c.from_reference)),
            "–" if c.jsd is None else f"{c.jsd:.4f}",
            _text(c.reference_jsd, 1.0, 4),
        ]


def distance_cells(found: Likeness) -> Iterable[list[str]]:
    """A row for each group, under `DISTANCE_HEADER`, as text."""
    for row in found.rows:
        numbers = (_text(row.start, 1.0, 3), _text(row.final, 1.0, 3), _text(row.overlap, 1.0, 3))
        yield [row.group, str(row.networks), *numbers]


def _text(of: Summary | None, unit: float, digits: int, mark: str = "") -> str:
    if of is None:
        return "–"
    spread = "" if isnan(of.std) else f" ± {unit * of.std:.{digits}f}"
    return f"{unit * of.mean:.{digits}f}{spread}{mark}"


def similarity_rows(found: Likeness) -> tuple[list[str], list[list[object]]]:
    """Header and rows of `similarity.csv`, in long form: group, quantity, mean, std, n."""
    rows: list[list[object]] = []
    for row in found.rows:
        for name, of in _quantities(row):
            if isinstance(of, Summary):
                rows.append([row.group, name, of.mean, of.std, of.n])
            elif of is not None:
                rows.append([row.group, name, of, None, row.networks])
    return ["group", "quantity", "mean", "std", "n"], rows


def _quantities(row: LikenessRow) -> Iterable[tuple[str, Summary | float | None]]:
    yield from ((field.name, getattr(row.comparison, field.name)) for field in fields(Comparison))
    yield from (("start_distance", row.start), ("final_distance", row.final), ("mask_overlap", row.overlap))

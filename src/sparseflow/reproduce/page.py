"""The page of an item, from the stores of its studies, whether or not they have ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from sparseflow.report import reports
from sparseflow.report.blocks import Block, Figure, Section
from sparseflow.report.page import write_page
from sparseflow.reproduce.assess import Assessment, assess, needs_runs
from sparseflow.reproduce.blocks import sections
from sparseflow.reproduce.experiment import Experiment
from sparseflow.reproduce.items import Item
from sparseflow.reproduce.scale import Scale
from sparseflow.reproduce.source import Source
from sparseflow.reproduce.words import rules_in_words
from sparseflow.study import now


def write_item(
    item: Item,
    experiment: Experiment,
    sources: Sequence[Source],
    scale: Scale,
    folder: Path,
    *,
    data: str | None = None,
    made: Sequence[Block] = (),
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> tuple[Path, Assessment, list[Figure]]:
    """Write `report.html` into the folder.

    Args:
        sources: of the studies that there are.
        data: what the item was trained on, if not the paper's data.
        made: figures and tables of makers and analyses.
        progress: told of every study whose report is drawn.

    Returns:
        The path of the page, what the item came to, and its figures.
    """
    found = assess(item, experiment, sources)
    own: list[Block] = list(made)
    rest: list[Section] = []
    for number, source in enumerate(sources if needs_runs(experiment) else ()):
        progress(number, len(sources))
        of_study = reports[source.study_kind](source.study)
        several = len(sources) > 1
        place = ", ".join(source.part.labels.values()) or of_study.title
        for section in of_study.sections:
            own += [block for block in section.blocks if _is_shown(block, experiment)]
            heading = f"{section.heading}: {place}" if several else section.heading
            blocks = [block for block in section.blocks if not _is_shown(block, experiment)]
            if blocks:
                rest.append(Section(heading, blocks))
    rules = rules_in_words(scale, experiment, data)
    path = folder / "report.html"
    subtitle = f"{item.where}; scale {scale.name}; {now()[:16].replace('T', ' ')} UTC"
    write_page(path, f"{item.id}: {item.phrase}", subtitle, [*sections(found, scale, rules, own), *rest])
    return path, found, [block for block in own if isinstance(block, Figure)]


def _is_shown(block: Block, experiment: Experiment) -> bool:
    return isinstance(block, Figure) and block.name in experiment.shows


def study_folder(out: Path, number: int, parts: int) -> Path:
    """Where the figures and tables of one of an item's studies go: several of them have files of the same names."""
    return out if parts == 1 else out / f"part-{number + 1}"

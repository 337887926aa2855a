"""The report of a search over layer densities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

from sparseflow.report import arms_figures, arms_tables
from sparseflow.report import search_figures as figures
from sparseflow.report import search_tables as tables
from sparseflow.report.blocks import Block, Section, Text, write_csv
from sparseflow.report.common import provenance
from sparseflow.report.formats import spread_text
from sparseflow.report.registry import Report, Study, reports
from sparseflow.report.runs import run_table
from sparseflow.report.search_depth import depth_figures
from sparseflow.search import Found, SearchSpec, budget, stored
from sparseflow.study import ArmResult, ArmsSpec, FactsBook, arm_results, arms_of, validate


@dataclass(frozen=True)
class Afterwards:
    """What the runs after a search say; None and empty while it goes on."""

    study: ArmsSpec | None
    results: Sequence[ArmResult]

    def of(self, arm: str) -> ArmResult | None:
        return next((r for r in self.results if r.arm.name == arm and r.counted), None)


@reports.add("search", cite="001 ch. 4, app. B")
def search_report(study: Study) -> Report:
    """Searches over layer densities: what was found, how it does on other seeds, how the search went."""
    spec = validate(SearchSpec, study.content["spec"])
    facts = FactsBook.load(study.content["facts"])
    known, statuses = study.store.results(), study.store.statuses()
    found = [Found.of(quest, study.store, known) for quest in stored(study.content)]
    after = []
    for one in found:
        last = one.quest.finals(one.trials)
        after.append(Afterwards(last, arm_results(last, arms_of(last), known, facts) if last is not None else ()))
    header, rows = tables.run_rows(found, after, known, statuses)
    write_csv(study.folder / "runs.csv", header, rows)
    write_csv(study.folder / "trials.csv", *tables.trial_rows(found))
    write_csv(study.folder / "verdicts.csv", *tables.verdict_rows(found))
    write_csv(study.folder / "importance.csv", *tables.importance_rows(found))
    ended = {name: known[name] for name in {str(row[0]) for row in rows} if name in known}
    several = len(found) > 1
    sections = [
        Section(
            "The answer",
            [
                *([Text(spec.description)] if spec.description else []),
                *(Text(_answer(one, then)) for one, then in zip(found, after, strict=True)),
                tables.found_table(found, after, known),
                *([tables.searches_table(found, after)] if several else []),
                *depth_figures(found, after, known, study.figures),
            ],
        ),
        *(
            Section(_headed("Trained again", one), _afterwards(then, known, facts, study, k if several else None))
            for k, (one, then) in enumerate(zip(found, after, strict=True), 1)
            if then.study is not None
        ),
        Section(
            "How the search went",
            [
                figures.progress_figure(found, study.figures),
                figures.front_figure(found, after, study.figures),
                *figures.halving_figures(found, study.figures),
            ],
        ),
        Section(
            "The vectors",
            [
                *figures.vector_figures(found, study.figures),
                *tables.importance_tables(found),
                *(tables.front_table(one) for one in found),
            ],
        ),
        Section("What these numbers can and cannot say", [Text(words) for words in _limits(spec, found)]),
        Section("Every run", [tables.trial_table(found), run_table(header[:5], header, rows)]),
        provenance(study.content, facts.different(), ended),
    ]
    return Report(spec.title, [section for section in sections if section.blocks])


def _headed(heading: str, found: Found) -> str:
    return f"{heading}: {found.quest.label}" if found.quest.label else heading


def _afterwards(then: Afterwards, known: tables.Known, facts: FactsBook, study: Study, k: int | None) -> list[Block]:
    assert then.study is not None
    name = "accuracies" if k is None else f"accuracies-{k}"
    return [
        arms_tables.arm_table(then.results, known, facts),
        arms_tables.cost_table(then.results, known, facts),
        arms_figures.dot_figure(then.results, then.of("dense"), study.figures, name),
        arms_tables.test_table(then.results, then.study),
    ]


def _answer(found: Found, then: Afterwards) -> str:
    """One search in two sentences."""
    spec, ended = found.quest.spec, [t for t in found.trials if t.status not in ("open", "failed")]
    begin = f"{found.quest.label}: " if found.quest.label else ""
    best = found.winner
    words = f"{begin}{len(ended)} of {spec.samples} vectors have been tried, {budget(found.trials):,} epochs in all"
    halted = sum(t.status == "halted" for t in found.trials)
    words += f"; {halted} of them were stopped at a rung." if halted else "."
    if best is None:
        return words
    split = arms_tables.SPLITS[spec.score]
    how = {"bayes": "proposed by the model", "initial": "one of the random vectors that the model began with"}
    words += (
        f" The winner is number {best.number} ({how.get(best.origin, best.origin)}), with {100 * best.score:.2f} % "
        f"{split} accuracy and {100 * found.share(best):.1f} % of the weights."
    )
    if (mine := then.of("winner")) is None:
        return words
    words += f" On seeds that the search has not seen: winner {_said(mine)}"
    words += "".join(f", {name} {_said(r)}" for name in ("dense", "median") if (r := then.of(name)) is not None)
    against = mine.against
    if against is not None and against.test is not None and not isnan(against.test.p_value):
        assert against.estimate is not None
        words += (
            f" (winner against dense: {100 * against.estimate.estimate:+.2f} points, p = {against.test.p_value:.3g}, "
            f"{against.test.pairs} pairs)"
        )
    return f"{words}."


def _said(result: ArmResult) -> str:
    return f"{spread_text([100 * m.accuracy for m in result.counted], 2, result.diverged)} %"


def _limits(spec: SearchSpec, found: Sequence[Found]) -> list[str]:
    words = []
    if spec.score == "val":
        words.append(
            "Vectors were chosen by validation accuracy; the test set was looked at by the runs after the search "
            "alone, which train on all training data, the validation split too, with seeds that it has not seen. "
            "A winner's validation accuracy is the highest of many and so too high: compare its test accuracy."
        )
    else:
        words.append(
            "Vectors were chosen by TEST accuracy, which is the paper's protocol (001 sec. 4.3.4). The winner's score "
            "is the highest of many on the same test images and so too high as an estimate of accuracy on new data; "
            "runs on other seeds share that flaw, since the vector was chosen for these images."
        )
    if any(t.status == "halted" for one in found for t in one.trials):
        words.append(
            "A run that was stopped at a rung has the score of that rung; its learning rate was not decayed yet, so "
            "that the score is not what the vector is worth. Only runs that went all the way can win."
        )
    words.append(
        "The median is the tried vector whose score is in the middle: what the same space gives without choosing. The "
        "distance from it to the winner is what the search was worth, the distance from it to dense what the space is."
    )
    if spec.rivals:
        words.append("Rivals have the winner's number of active weights; rules that count layer by layer round it.")
    return words

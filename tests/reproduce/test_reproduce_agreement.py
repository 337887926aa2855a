"""Agreement of cells and tables, and claims, on numbers made for it."""

from __future__ import annotations

from math import isnan, nan
from typing import Any

import numpy as np
import pytest
from scipy import stats

from sparseflow.reproduce.agreement import agreement, compare_tables
from sparseflow.reproduce.blocks import summary
from sparseflow.reproduce.claims import judge
from sparseflow.reproduce.items import PaperClaim
from sparseflow.reproduce.measured import Measured, over_runs
from sparseflow.reproduce.printed import PaperTable, Printed
from sparseflow.reproduce.source import Observed


def p(value: float, smallest: float = 3e-5) -> Measured:
    return Measured(value, n=15, smallest=smallest, normal=value)


@pytest.mark.parametrize(
    ("printed", "measured", "side"),
    [
        ("0.006", p(0.04), "same side"),
        ("0.006", p(0.06), "other side"),
        ("0.9", p(0.06), "same side"),
        ("0.9", p(0.01), "other side"),
        ("0.006", p(0.0625, smallest=0.0625), "cannot tell"),
        ("0.9", p(1.0, smallest=0.25), "cannot tell"),
    ],
)
def test_p_values_agree_by_their_side_of_the_level(printed: str, measured: Measured, side: str) -> None:
    found = agreement(Printed.read(printed), measured)
    assert found.side == side
    assert isnan(found.difference)


def test_the_interval_of_a_difference_is_students() -> None:
    values = [61.0, 62.5, 60.0, 63.5]
    found = agreement(Printed.read("60.0 ± 1.0"), over_runs(values))
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert found.difference == pytest.approx(np.mean(values) - 60.0)
    assert (found.low, found.high) == (pytest.approx(low - 60.0), pytest.approx(high - 60.0))
    assert found.side == ""


def test_one_run_has_no_interval_and_no_number_no_difference() -> None:
    assert isnan(agreement(Printed.read("60.0"), over_runs([61.0])).low)
    assert isnan(agreement(Printed.read(""), over_runs([61.0])).difference)
    assert agreement(Printed.read("60.0"), None).measured is None


def table(values: list[list[str]]) -> PaperTable:
    columns = tuple((f"c{k}",) for k in range(len(values[0])))
    rows = tuple((f"r{k}",) for k in range(len(values)))
    return PaperTable(("row",), rows, columns, tuple(tuple(map(Printed.read, row)) for row in values))


def test_the_order_of_a_table_is_kendalls_tau_over_cells_that_both_have() -> None:
    printed = table([["1", "5"], ["2", ""], ["3", "9"]])
    measured = [[Measured(10.0), Measured(30.0)], [Measured(20.0), Measured(1.0)], [Measured(15.0), None]]
    found = compare_tables(printed, measured)
    pairs = [(1, 10), (5, 30), (2, 20), (3, 15)]
    assert found.tau == pytest.approx(stats.kendalltau(*zip(*pairs, strict=True)).statistic)
    assert (found.ranked, len(found.compared)) == (4, 4)
    assert found.by_column["c0"] == (pytest.approx(1 / 3), 3)
    assert isnan(compare_tables(printed, measured, mixed=True).tau)


def runs(rows: list[tuple[dict[str, str], int, float]]) -> list[Observed]:
    return [Observed(labels, seed, {"accuracy": value}) for labels, seed, value in rows]


def nothing(row: str, column: str) -> Measured | None:
    return None


def more(one: dict[str, Any], other: dict[str, Any]) -> PaperClaim:
    return PaperClaim("one is more", "sec. 1", (one, other))


def paired(difference: float, seeds: int = 8) -> list[Observed]:
    """Two variants on two optimisers; the second optimiser is far better, which pairing must remove."""
    rng = np.random.default_rng(0)
    rows = []
    for seed in range(seeds):
        for optimizer, level in (("A", 20.0), ("B", 80.0)):
            noise = float(rng.normal(0, 5))
            rows.append(({"Optimizer": optimizer, "Variant": "BN"}, seed, level + noise + difference))
            rows.append(({"Optimizer": optimizer, "Variant": "NR"}, seed, level + noise + float(rng.normal(0, 0.01))))
    return runs(rows)


@pytest.mark.parametrize(("difference", "verdict"), [(1.0, "seen"), (-1.0, "contradicted"), (0.0, "not seen")])
def test_claims_of_more_are_tested_on_runs_that_differ_in_nothing_else(difference: float, verdict: str) -> None:
    found = judge(more({"Variant": "BN"}, {"Variant": "NR"}), paired(difference), nothing, "accuracy")
    assert found.verdict == verdict
    assert found.pairs == 16
    if difference:
        assert found.difference == pytest.approx(difference, abs=0.02)


def test_too_few_pairs_cannot_tell() -> None:
    found = judge(more({"Variant": "BN"}, {"Variant": "NR"}), paired(1.0, seeds=2), nothing, "accuracy")
    assert (found.verdict, found.pairs) == ("cannot tell", 4)


def test_a_selection_by_lists_is_averaged_and_unmatched_runs_are_left_out() -> None:
    rows = [
        ({"Arm": arm}, seed, value + seed) for seed in range(6) for arm, value in (("a", 1.0), ("b", 3.0), ("c", 1.5))
    ]
    rows.append(({"Arm": "a"}, 99, 1000.0))
    found = judge(more({"Arm": ["a", "b"]}, {"Arm": "c"}), runs(rows), nothing, "accuracy")
    assert (found.verdict, found.pairs) == ("seen", 6)
    assert found.difference == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        (PaperClaim("words", "sec. 1"), ""),
        (more({"quantity": "distance"}, {"quantity": "distance"}), "no number of a run is its distance"),
        (more({"Layer": "1"}, {"Layer": "2"}), "runs have no Layer"),
    ],
)
def test_what_no_rule_covers_is_not_judged(claim: PaperClaim, words: str) -> None:
    found = judge(claim, paired(1.0), nothing, "accuracy")
    assert (found.verdict, found.evidence) == ("not judged", words)


def test_claims_of_single_p_values() -> None:
    cells = {("SGD", "NR"): p(0.9), ("SGD", "BN"): p(0.01), ("Adam", "BN"): p(0.2)}
    claim = PaperClaim("BN helps", "", None, (("SGD", "BN"), ("Adam", "BN")), (("SGD", "NR"),))
    found = judge(claim, [], lambda row, column: cells.get((row, column)), "accuracy")
    assert (found.verdict, found.evidence) == ("not seen", "2 of 3 cells")
    cells["Adam", "BN"] = p(0.001)
    assert judge(claim, [], lambda row, column: cells.get((row, column)), "accuracy").verdict == "seen"
    assert judge(claim, [], nothing, "accuracy").verdict == "cannot tell"
    del cells["Adam", "BN"]
    found = judge(claim, [], lambda row, column: cells.get((row, column)), "accuracy")
    assert (found.verdict, found.evidence) == ("cannot tell", "2 of 2 cells, of 3 that the claim names")


def test_that_one_does_not_beat_another_is_never_seen() -> None:
    claim = PaperClaim("sparse is not better", "", None, (), (("SGD", "NR"), ("SGD", "L2")))
    cells = {("SGD", "NR"): p(0.9), ("SGD", "L2"): p(0.4)}
    found = judge(claim, [], lambda row, column: cells.get((row, column)), "accuracy")
    assert (found.verdict, found.evidence) == ("in line", "2 of 2 cells")
    cells["SGD", "L2"] = p(0.01)
    assert judge(claim, [], lambda row, column: cells.get((row, column)), "accuracy").verdict == "not seen"


def test_nothing_measured_is_nan() -> None:
    assert over_runs([]) is None
    assert isnan(Measured().value)
    assert Measured(1.0, nan).is_number


def test_a_table_is_summed_up_by_what_its_cells_are() -> None:
    nothing_yet = compare_tables(table([["1", "2"]]), [[None, None]])
    assert summary(nothing_yet) == "Nothing has been measured yet for the 2 numbers of this table."
    settings = compare_tables(
        table([["128", "0.1", "SGD"]]), [[Measured(text="128"), Measured(text="0.2"), Measured(text="sgd")]]
    )
    assert summary(settings).endswith(
        "3 settings are read from the specifications. Where both are plain numbers, 1 of 2 are equal."
    )
    sides = compare_tables(
        table([["0.001", "0.9"], ["0.2", "0.3"]]), [[p(0.01), p(0.02)], [p(0.9), p(1.0, smallest=0.25)]]
    )
    words = summary(sides)
    assert "2 of 3 are on the paper's side" in words
    assert "1 rest on too few pairs" in words

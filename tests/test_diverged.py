"""A run that diverges ends early, is recorded, and never stops a study."""

from __future__ import annotations

from math import isnan, log

import numpy as np
import pytest

from sparseflow.study import Cell, DataFacts, Pair, Surroundings, compare_cells, execute, kendall_rows
from sparseflow.study.compare import Statistics


def test_a_diverging_run_ends_early(small, cache):
    result = execute(small(optimizer={"lr": 1e25}, train={"epochs": 50}), Surroundings(), cache)
    assert result.status == "diverged"
    assert result.epoch < 50
    assert result.digest


def facts(classes=4, test_size=80):
    return DataFacts("d", (3, 6, 6), classes, 160, test_size, "")


def result(status, accuracy=0.5, loss=1.0):
    return {"status": status, "final": {"test_accuracy": accuracy, "test_loss": loss}}


@pytest.fixture
def cell(small):
    runs = [(small(seed=s), small(seed=s, mask={"twin_width": None})) for s in range(6)]
    return Cell("SGD", "NR", "relu", tuple(Pair(12, s, a, b) for s, (a, b) in enumerate(runs)))


def known(cell, sparse, dense):
    found = {pair.sparse.name: r for pair, r in zip(cell.pairs, sparse, strict=True) if r}
    return found | {pair.dense.name: r for pair, r in zip(cell.pairs, dense, strict=True) if r}


def test_counts_as_guessing(cell):
    results = known(cell, [result("diverged", 0.9, float("nan"))] * 6, [result("finished", 0.5)] * 6)
    (r,) = compare_cells([cell], results, facts(), Statistics())
    assert [p.sparse.accuracy for p in r.pairs] == [0.25] * 6
    assert [p.sparse.loss for p in r.pairs] == [log(4)] * 6
    assert r.count("sparse", "diverged") == 6
    assert r.exact.p_value == 1.0


def test_or_takes_its_pair_out(cell):
    results = known(cell, [result("diverged")] + [result("finished", 0.6)] * 5, [result("finished", 0.5)] * 6)
    (r,) = compare_cells([cell], results, facts(), Statistics(diverged="nan"))
    assert len(r.complete) == 5
    assert r.exact.p_value == 2**-5
    assert r.count("sparse", "diverged") == 1


def test_missing_and_failed_runs_are_counted_and_left_out(cell):
    sparse = [None, result("failed"), *[result("finished", 0.6)] * 4]
    (r,) = compare_cells([cell], known(cell, sparse, [result("finished", 0.5)] * 6), facts(), Statistics())
    assert len(r.complete) == 4
    assert r.missing == 2


def test_differences_equal_in_test_images_are_ties(cell):
    """0.7 - 0.6 and 0.2 - 0.1 differ in the last bit; as 8 of 80 images they are the same."""
    pairs = [(0.7, 0.6), (0.2, 0.1), (0.4, 0.3), (0.9, 0.8), (0.6, 0.5), (0.3, 0.4)]
    assert len({a - b for a, b in pairs}) > 2
    sparse, dense = ([result("finished", p[k]) for p in pairs] for k in (0, 1))
    (r,) = compare_cells([cell], known(cell, sparse, dense), facts(), Statistics())
    assert r.exact.ties
    assert r.exact.statistic == 5 * 3.5


def test_nothing_ended_gives_no_tau(cell):
    results = compare_cells([cell], {}, facts(), Statistics())
    rows = kendall_rows([cell], results, {}, ["egf_2"])
    assert {(row.average.counted, row.average.constant) for row in rows} == {(0, 0)}


def test_nothing_ended_gives_no_test(cell):
    (r,) = compare_cells([cell], {}, facts(), Statistics())
    assert r.exact is None
    assert isnan(r.holm)
    assert np.isnan(r.bh)


def test_differences_that_cancel_exactly_need_no_pairs(cell):
    """0.1 - 0.2 + 0.1 is 1e-17 in floating point; as test images it is nothing, and no effect to plan for."""
    changes = (8, -16, 8, 0, 0, 0)
    sparse = [result("finished", (40 + c) / 80) for c in changes]
    dense = [result("finished", 40 / 80)] * 6
    (r,) = compare_cells([cell], known(cell, sparse, dense), facts(), Statistics())
    assert r.pairs_needed is None

"""What is counted when the time of a study is estimated. Timings are replaced: one second each."""

from __future__ import annotations

import pytest

from sparseflow.measure.probes import PRODUCTS
from sparseflow.study import Estimator, Surroundings
from sparseflow.study import estimate as module


@pytest.fixture
def seconds(small, cache, monkeypatch):
    monkeypatch.setattr(module, "_median", lambda call: (call(), 1.0)[1])
    monkeypatch.setattr(module.time, "perf_counter", lambda: 0.0)

    def of(**sections) -> float:
        run = small(mask={"twin_width": None}, train={"stack": "never"}, **sections)
        return Estimator(Surroundings(), cache).seconds([run])

    return of


def test_steps_evaluations_and_gradient_flow_by_hand(seconds):
    # 160 examples in batches of 32, twice; two epochs are evaluated.
    plain = seconds(measure={"points": 0, "gradient_flow": False})
    assert plain == pytest.approx(2 * 5 + 2)
    assert seconds(measure={"points": 3, "gradient_flow": False}) == pytest.approx(plain + 3)
    assert seconds(measure={"points": 3, "probe_size": 64}) == pytest.approx(plain + 3 + 3 * 64 / 32)


def test_the_ends_of_a_spectrum_cost_so_many_products_at_each_point(seconds):
    without = seconds(measure={"points": 3, "probe_size": 64})
    assert seconds(measure={"points": 3, "probe_size": 64, "eigenvalues": 2}) == pytest.approx(without + 3 * PRODUCTS)


def test_a_gradient_is_timed_on_the_batches_of_the_analyses(small, cache, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "_median", lambda call: (seen.append(call()), 6.0)[1])
    run = small(mask={"twin_width": None})
    assert Estimator(Surroundings(), cache).gradient_s(run) == pytest.approx(6.0 / 100)  # of 160 examples
    monkeypatch.setattr(module, "BATCH", 1_000)
    assert Estimator(Surroundings(), cache).gradient_s(run) == pytest.approx(6.0 / 160)
    assert len(seen) == 2

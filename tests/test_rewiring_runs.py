"""Rewiring in runs of a study: what is recorded, and that a cut run ends like an unbroken one."""

from __future__ import annotations

from collections import defaultdict

import pytest

from sparseflow.core import SparseflowError
from sparseflow.study import Surroundings, execute
from sparseflow.train import rewirings


@pytest.fixture
def rewired(small):
    def make(rule, execution="masked", optimizer="momentum", **options):
        return small(
            mask={"twin_width": None, "density": 0.3, "execution": execution},
            rewire={"rule": rule, "every": 3, "stop": 1.0, **options},
            optimizer={"name": optimizer, "lr": 0.02},
            train={"epochs": 4},
        )

    return make


@pytest.mark.parametrize("execution", ["masked", "compact"])
@pytest.mark.parametrize("rule", rewirings.names)
@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_stopped_between_two_updates_equals_unbroken(rule, execution, optimizer, rewired, cache, tmp_path):
    spec = rewired(rule, execution, optimizer)
    rows: dict = {"whole": [], "cut": []}
    whole = execute(spec, Surroundings(checkpoints=tmp_path / "a"), cache, rows["whole"].extend)
    where = Surroundings(checkpoints=tmp_path / "b")
    assert execute(spec, where, cache, should_stop=lambda: True).status == "stopped"
    result = execute(spec, where, cache, rows["cut"].extend)
    assert result.resumed_at == 1
    assert result.digest == whole.digest != ""
    assert result.final == whole.final
    assert result.training_flops == whole.training_flops
    assert sorted(rows["cut"]) == sorted(rows["whole"])
    assert set(whole.execution.values()) == {execution}


@pytest.mark.parametrize("execution", ["masked", "compact"])
def test_what_every_update_did_is_recorded(execution, rewired, cache):
    rows: list = []
    result = execute(rewired("set", execution, fraction=0.5), Surroundings(), cache, rows.extend)
    series = defaultdict(list)
    for step, _, metric, layer, value in rows:
        series[metric, layer].append((step, value))
    layers = list(result.active)
    assert [step for step, _ in series["explored", ""]] == [3, 6, 9, 12, 15, 18]
    for layer in layers:
        dropped, grown = series["dropped", layer], series["grown", layer]
        assert dropped == grown
        assert 0 < dropped[0][1] < 0.5 * result.active[layer]
        assert len(series["density", layer]) == 6
        assert len({value for _, value in series["density", layer]}) == 1
    explored = [value for _, value in series["explored", ""]]
    assert explored == sorted(explored)
    assert 0.3 < explored[0] < explored[-1] <= 1.0
    assert len({value for _, value in series["density", ""]}) == 1
    assert not series["gradient_norm_before", ""]


def test_growing_by_the_gradient_raises_its_norm_and_the_inverse_does_not(rewired, cache):
    """004 Fig. 3 in small: the norm over active weights, by one batch, before and after."""
    rises = {}
    for rule in rewirings.names:
        rows: list = []
        spec = rewired(rule, fraction=0.5, gradient_norms=True)
        execute(spec, Surroundings(), cache, rows.extend)
        before = [value for _, _, metric, _, value in rows if metric == "gradient_norm_before"]
        after = [value for _, _, metric, _, value in rows if metric == "gradient_norm_after"]
        assert len(before) == len(after) == 6
        rises[rule] = sum(b / a for a, b in zip(before, after, strict=True)) / 6
    assert rises["rigl"] > 1.1
    assert rises["rigl"] > rises["set"] > rises["rigl-inverted"]


def test_rewiring_that_cannot_be_is_said_in_words(small):
    for change, words in (
        ({"mask": {"twin_width": None}, "rewire": {"rule": "set"}}, "rewire needs a mask"),
        ({"rewire": {"rule": "rigle"}}, r"unknown rewiring rule 'rigle' .* did you mean 'rigl'"),
        ({"rewire": {"rule": "set", "every": 0}}, r"rewire\.every"),
        ({"rewire": {"rule": "set", "fraction": 1.5}}, r"fraction to drop must be in \(0, 1\], got 1.5"),
        ({"rewire": {"rule": "set", "stop": 0}}, r"rewire\.stop"),
        ({"rewire": {"every": 5}}, r"rewire\.rule"),
    ):
        with pytest.raises(SparseflowError, match=words):
            small(**change)

"""The search spaces of 001 ch. 4 have the networks of its tables."""

from __future__ import annotations

import pytest

from sparseflow.search import SearchSpec, quests
from sparseflow.study import DataFacts, read_preset, validate

DENSE_MILLIONS = {
    ("cifar-10", 2): 18.9, ("cifar-10", 4): 37.9, ("cifar-10", 8): 75.7, ("cifar-10", 16): 151.5,
    ("cifar-10", 32): 302.9,
    ("cifar-100", 2): 19.2, ("cifar-100", 4): 38.2, ("cifar-100", 8): 76.0, ("cifar-100", 16): 151.7,
    ("cifar-100", 32): 303.2,
}  # fmt: skip
"""001 Table B.1, rows "Dense Baseline"."""

WINNERS = [
    (2, 11.8, 62.017, (0.456, 0.785, 0.2)),
    (4, 25.1, 66.377, (0.375, 0.951, 0.732, 0.599, 0.156)),
    (8, 41.4, 54.625, (0.12, 0.713, 0.761, 0.561, 0.771, 0.494, 0.523, 0.428, 0.025)),
]
"""001 Table B.1(a), "Random": layers, millions of weights, % dense, densities."""


def spaces(name):
    def facts(run):
        classes = 100 if run.data.name == "cifar-100" else 10
        return DataFacts(run.data.name, (3, 32, 32), classes, 50_000, 10_000, "")

    return quests(validate(SearchSpec, read_preset(name)), facts)


@pytest.fixture(scope="module")
def perceptrons():
    return {(q.spec.base["data"]["name"], q.spec.plain().model.depth): q.space for q in spaces("search-mlp")
            if not q.spec.uniform}  # fmt: skip


def test_the_perceptrons_have_the_papers_numbers_of_weights(perceptrons):
    """To one in the last printed digit, with scale and shift of BatchNorm, which the paper counts as weights."""
    assert perceptrons.keys() == DENSE_MILLIONS.keys()
    for place, millions in DENSE_MILLIONS.items():
        norms = 2 * 3076 * place[1]
        assert (perceptrons[place].total + norms) / 1e6 == pytest.approx(millions, abs=0.1), place
        assert perceptrons[place].dimensions == place[1] + 1


@pytest.mark.parametrize(("layers", "millions", "percent", "vector"), WINNERS)
def test_the_papers_vectors_make_the_papers_sizes(layers, millions, percent, vector, perceptrons):
    space = perceptrons["cifar-10", layers]
    assert space.active(vector) / 1e6 == pytest.approx(millions, abs=0.11)
    assert 100 * space.total_density(vector) == pytest.approx(percent, abs=0.15)


def test_the_convolutional_spaces_are_of_the_papers_networks():
    sizes = {q.spec.base["model"]["name"]: q.space.total / 1e6 for q in spaces("search-cnn")}
    assert sizes["resnet"] == pytest.approx(1.9, abs=0.05)
    assert sizes["wide-resnet"] == pytest.approx(36.5, abs=0.1)

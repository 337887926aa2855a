"""Readers of tables of pairs, on a small comparison that was really trained."""

from __future__ import annotations

from math import isnan
from statistics import fmean

import pytest
import torch
from scipy.stats import kendalltau
from small_sources import source_of, trained_pairs

from sparseflow.reproduce.readers import readers
from sparseflow.study import Store

OUTCOMES = {"Test Loss": "test_loss", "Test Accuracy": "test_accuracy"}


@pytest.fixture(scope="module")
def compared(small_npz, tmp_path_factory):
    torch.set_num_threads(1)
    content = {
        "data": {"name": str(small_npz)},
        "model": {"depth": 2},
        "optimizer": {"name": "momentum", "lr": 0.02},
        "train": {"epochs": 4, "batch_size": 32},
        "measure": {"points": 5},
        "compare": {"dense_widths": [0.3, 0.7], "seeds": 2, "optimizers": ["momentum"], "variants": ["NR", "BN"]},
    }
    folder = tmp_path_factory.mktemp("pairs") / "out"
    return trained_pairs(content, folder), folder


def place(**changed):
    return {"Dataset": "FMNIST", "Measure": "EGF_2", "Density": "Sparse", "Outcome": "Test Loss"} | changed


NAMED = {"labels": {"Dataset": "Fashion-MNIST"}, "relabel": {"Dataset": {"Fashion-MNIST": "FMNIST"}}}


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("density", ["Sparse", "Dense"])
def test_tau_is_scipys_mean_over_all_trainings(compared, density, outcome):
    spec, folder = compared
    store = Store(folder)
    series = store.series(["egf_2", *OUTCOMES.values()], points_only=True)
    store.close()
    with source_of(spec, folder, **NAMED) as source:
        found = readers["tau"]([source], place(Density=density, Outcome=outcome))
        runs = [getattr(pair, density.lower()).run for result in source.cells for pair in result.pairs]
    taus = []
    for run in runs:
        of = {name: dict(points) for name, points in series[run].items()}
        steps = sorted(of["egf_2"])
        tau = kendalltau([of["egf_2"][k] for k in steps], [of[OUTCOMES[outcome]][k] for k in steps]).statistic
        taus += [] if isnan(tau) else [abs(tau)]
    assert len(runs) == 2 * 2 * 2
    assert found.n == len(taus) > 0
    assert found.value == pytest.approx(fmean(taus), rel=1e-12)


def test_a_study_is_read_under_the_name_that_the_table_has_for_its_data(compared):
    with source_of(*compared, **NAMED) as source:
        assert readers["tau"]([source], place()) is not None
        assert readers["tau"]([source], place(Dataset="Fashion-MNIST")) is None
        assert readers["tau"]([source], place(Dataset="CIFAR-10")) is None

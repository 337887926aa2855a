"""The accuracy on training examples, as a measurement along the training."""

from __future__ import annotations

import pytest
import torch

from sparseflow.measure import AccuracyProbe
from sparseflow.study import Surroundings, execute


def test_it_is_the_share_of_right_answers_and_leaves_the_mode_alone():
    model = torch.nn.Sequential(torch.nn.Dropout(0.9), torch.nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.eye(2))
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0], [0.0, 3.0], [5.0, 4.0]])
    batches = ((x[:3], torch.tensor([0, 1, 1])), (x[3:], torch.tensor([1, 0])))
    ((metric, value),) = AccuracyProbe(batches)(model, {}).items()
    assert (metric.name, value) == ("train_accuracy", 0.8)
    assert model.training


@pytest.mark.parametrize("stack", ["auto", "never"])
def test_a_run_ends_with_it(stack, small, cache):
    content = {"measure": {"points": 1, "gradient_flow": False, "train_accuracy": True}, "train": {"stack": stack}}
    result = execute(small(**content), Surroundings(), cache)
    assert result.stacked == (stack == "auto")
    assert 0.3 < result.final["train_accuracy"] <= 1.0

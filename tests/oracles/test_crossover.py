"""What is worth compacting: the shipped table, and measuring it."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from sparseflow.core import BadValue, weight_shapes
from sparseflow.sparse import choose, compact, crossover, native, worth_compacting

BIG, SMALL = torch.Size((600, 600)), torch.Size((60, 60))
CONV, TINY = torch.Size((32, 32, 3, 3)), torch.Size((4, 4, 3, 3))


@pytest.mark.parametrize("there", [True, False])
def test_the_table_takes_large_sparse_layers(there, monkeypatch):
    monkeypatch.setattr(native, "available", lambda: there)
    for shape in (BIG, SMALL, CONV, TINY):
        shapes = {"w": shape}
        for how in ("masked", "compact"):
            assert choose(shapes, {"w": 5}, how) == {"w": how}
        picks = [choose(shapes, {"w": round(d * shape.numel())}, "auto")["w"] for d in (0.0, 0.1, 0.25, 0.45, 0.9, 1.0)]
        assert picks == sorted(picks), "compact below one density, masked above"
        assert picks[-1] == "masked"
        assert (picks[1] == "compact") == (shape == BIG or (shape == CONV and there))
    assert choose({"w": BIG}, {"w": 180_000}, "auto")["w"] == ("compact" if there else "masked")
    with pytest.raises(BadValue, match="auto, masked, compact"):
        choose({"w": BIG}, {"w": 5}, "fast")


def network() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding="same"), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(128, 20), nn.Linear(20, 5)
    )
    return model, {name: torch.rand(shape) < 0.2 for name, shape in weight_shapes(model).items()}


def test_measured_crossovers_decide_and_are_kept(tmp_path, monkeypatch):
    model, masks = network()
    asked = []

    def measure(case):
        asked.append(case)
        return 0.5 if len(case.weight) == 4 else 0.1

    monkeypatch.setattr(crossover, "measure", measure)
    file = tmp_path / "folder" / "crossover.json"
    state = {k: v.clone() for k, v in model.state_dict().items()}
    said = []
    example = torch.randn(6, 3, 4, 4)
    assert worth_compacting(model, masks, example, cache=file, report=said.append) == ["0.weight"]
    assert [case.weight for case in asked] == [(8, 3, 3, 3), (20, 128), (5, 20)]
    assert [case.input for case in asked] == [(6, 3, 4, 4), (6, 128), (6, 20)]
    assert asked[0].padding == (1, 1)
    assert len(said) == 3
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items()), "the model is as it was"
    assert model.training
    assert worth_compacting(model, masks, example, cache=file) == ["0.weight"]
    assert len(asked) == 3, "remembered"
    worth_compacting(model, masks, example[:5], cache=file)
    assert len(asked) == 6, "another batch is another case"
    file.write_text("{broken")
    worth_compacting(model, masks, example, cache=file)
    assert len(asked) == 9, "what cannot be read is measured again"
    assert len(next(iter(json.loads(file.read_text()).values()))) == 3
    done = compact(model, masks, only=worth_compacting(model, masks, example, cache=file))
    assert done.compacted == ("0.weight",)
    assert set(done.left_masked.values()) == {"masked by choice"}
    assert worth_compacting(model, masks, example, cache=file) == [], "what is compact already is no candidate"


def test_the_default_cache_is_the_users(tmp_path, monkeypatch):
    monkeypatch.delenv("SPARSEFLOW_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(crossover, "measure", lambda case: 0.0)
    model, masks = network()
    assert worth_compacting(model, masks, torch.randn(2, 3, 4, 4)) == []
    assert (tmp_path / "sparseflow" / "crossover.json").exists()


def test_bisection_finds_the_crossover(monkeypatch):
    case = crossover.Case((4, 4), (2, 4))
    for border in (0.0, 0.01, 0.3, 1.0):
        monkeypatch.setattr(crossover, "times", lambda case, density, b=border: (1.0, 1.0 if density <= b else 1.1))
        assert crossover.measure(case) == border


@pytest.mark.parametrize(
    "case",
    [crossover.Case((20, 30), (6, 30)), crossover.Case((4, 3, 3, 3), (2, 3, 5, 5), (2, 1), (1, 0), "float64")],
    ids=["linear", "conv"],
)
def test_both_are_timed(case):
    masked, compacted = crossover.times(case, 0.3, seconds=0.0)
    assert masked > 0
    assert compacted > 0

"""`benchmarks/hessian_products.py`: what it times is the same product, and its ratios have the rival they name."""

from __future__ import annotations

import importlib.util
import json
import sys
from math import nan
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from by_hand import dense_hessian, flat
from sparseflow.core import BadValue

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "hessian_products.py"


@pytest.fixture
def script(monkeypatch):
    """As a module, with a small perceptron and a small ResNet under its networks' names."""
    spec = importlib.util.spec_from_file_location("hessian_products", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look there
    spec.loader.exec_module(module)
    monkeypatch.setitem(module.NETS, "mlp", ("mlp", (6,), {"depth": 1, "width": 8}))
    monkeypatch.setitem(module.NETS, "resnet-20", ("resnet", (3, 8, 8), {"depth": 8, "width": 4}))
    return module


@pytest.mark.parametrize("kept", [True, False])
def test_pyhessian_multiplies_by_the_same_matrix(script, kept):
    """Its parameters are in the model's order, ours have the weights first."""
    pytest.importorskip("pyhessian")
    ours, theirs = (
        make("resnet-20", 3, "float64", kept) for make in (script.sparseflow_product, script.pyhessian_product)
    )
    torch.testing.assert_close(ours(), theirs(), rtol=1e-9, atol=1e-11)
    assert torch.equal(theirs(), theirs())


def test_both_executions_are_timed_on_the_product_of_the_dense_matrix(script):
    model, masks, ((x, y),) = script.network("mlp", 4, 0.4, "float64")
    weights = {name: model.get_parameter(name).detach() for name in masks}

    def loss(placed):
        return F.cross_entropy(torch.func.functional_call(model, placed, (x,)), y)

    active = flat(masks)
    expected = dense_hessian(loss, weights)[active][:, active] @ script.vector(int(active.sum()), "float64")
    for compact in (False, True):
        found = script.execution_product("mlp", 4, "float64", 0.4, compact)()
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_ratios_are_to_the_rival_in_the_row_above(script):
    rows = [
        script.Row("mlp", "masked", [4.0, 2.0, 8.0], [1.0] * 3, 60),
        script.Row("mlp", "compact", [1.0] * 3, [1.0] * 3, 30),
    ]
    assert script.table(rows)[-1].endswith("0.250, 0.500, 0.500 x masked")


def test_the_script_says_what_it_found(script, capsys, monkeypatch):
    words = ["executions", "--nets", "mlp", "--batch", "3", "--rounds", "2", "--no-memory", "--dtype", "float64"]
    words += ["--density", "0.6"]
    script.main([*words, "--json"])
    said = json.loads(capsys.readouterr().out.replace("NaN", "null"))
    assert [(row["net"], row["name"], len(row["processor"])) for row in said] == [
        ("mlp", "masked", 2),
        ("mlp", "compact", 2),
    ]
    assert 0 < said[0]["apart"] < 1e-12
    script.main(words)
    assert "x masked" in capsys.readouterr().out
    monkeypatch.setattr(script, "agreement", lambda products: 1e-3)
    with pytest.raises(BadValue, match=r"the products of mlp differ by 0\.001 of their length; nothing was timed"):
        script.main(words)
    for wrong in (["executions", "--nets", "x"], ["executions", "--density", "1"], ["executions", "--rounds", "0"]):
        with pytest.raises(SystemExit):
            script.main(wrong)
    monkeypatch.setitem(sys.modules, "pyhessian", None)
    with pytest.raises(SystemExit, match=r"PyHessian is not installed: pip install -c constraints\.txt pyhessian"):
        script.main(["pyhessian", "--rounds", "1"])


def test_memory_is_measured_in_a_process_of_its_own(script, monkeypatch):
    asked = []
    monkeypatch.setattr(
        script, "peak_mib", lambda make, arguments, small: asked.append((make.__name__, arguments, small)) or nan
    )
    script.main(["executions", "--nets", "mlp", "--batch", "5", "--rounds", "1", "--density", "0.6"])
    rest = [("float32", 0.6, compact) for compact in (False, True)]
    assert asked == [("execution_product", ("mlp", 5, *one), ("mlp", 2, *one)) for one in rest]

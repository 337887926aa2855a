"""Makers of figures: the functions that they draw, and signals that go on where they were cut."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from sparseflow.core import UnknownName
from sparseflow.init import Scheme
from sparseflow.measure import signal_propagation
from sparseflow.reproduce.experiment import experiment
from sparseflow.reproduce.makers import makers, signal
from sparseflow.reproduce.scale import LADDER, Scale
from sparseflow.study import RunSpec, build, validate


def drawn(options, folder):
    """Function -> (x, value, derivative), from the figure's rows."""
    steps = []
    (figure,) = makers["functions"](options, LADDER[0], folder, lambda done, of: steps.append((done, of)))
    assert steps[-1][0] == steps[-1][1] == len(steps)
    assert figure.svg.startswith("<svg")
    found = {}
    with (folder / "figures" / f"{figure.name}.csv").open() as file:
        for row in csv.DictReader(file):
            found.setdefault(row["function"], []).append([float(row[k]) for k in ("x", "value", "derivative")])
    return figure, {name: np.array(rows).T for name, rows in found.items()}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


LAWS = {
    "ReLU": (lambda x: np.maximum(x, 0), lambda x: (x > 0) * 1.0),
    "PReLU": (lambda x: np.where(x > 0, x, x / 4), lambda x: np.where(x > 0, 1, 0.25)),
    "ELU": (lambda x: np.where(x > 0, x, np.exp(x) - 1), lambda x: np.where(x > 0, 1, np.exp(x))),
    "Swish": (lambda x: x * sigmoid(x), lambda x: sigmoid(x) * (1 + x * (1 - sigmoid(x)))),
    "SReLU": (lambda x: np.where(x > 0, x, x / 5), lambda x: np.where(x > 0, 1, 0.2)),
    "sigmoid": (sigmoid, lambda x: sigmoid(x) * (1 - sigmoid(x))),
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "PSwish, β = 0": (lambda x: x / 2, lambda x: 0 * x + 0.5),
    "PSwish, β = 2": (lambda x: x * sigmoid(2 * x), lambda x: sigmoid(2 * x) * (1 + 2 * x * (1 - sigmoid(2 * x)))),
}
NAMES = ["relu", "prelu", "elu", "swish", "srelu", "sigmoid", "tanh"]


def test_functions_and_derivatives_are_those_of_their_formulas(tmp_path):
    _, found = drawn({"names": NAMES, "betas": [0, 2], "what": "both"}, tmp_path)
    assert list(found) == list(LAWS)
    for name, (x, values, slopes) in found.items():
        value, slope = LAWS[name]
        assert (x[0], x[-1], x[len(x) // 2]) == (-5, 5, 0)
        np.testing.assert_allclose(values, value(x), atol=1e-12)
        smooth = x != 0
        np.testing.assert_allclose(slopes[smooth], slope(x)[smooth], atol=1e-12)
    assert found["ReLU"][2][len(found["ReLU"][0]) // 2] == 0


@pytest.mark.parametrize(("what", "axes", "title"), [
    ("function", 1, "Activation functions"),
    ("derivative", 1, "Derivatives of activation functions"),
    ("both", 2, "Activation functions and their derivatives"),
])  # fmt: skip
def test_what_is_drawn(tmp_path, what, axes, title):
    figure, _ = drawn({"names": ["relu"], "what": what}, tmp_path)
    assert figure.title == title
    assert figure.svg.count('id="axes_') == axes


def test_mistakes_of_options(tmp_path):
    with pytest.raises(ValueError, match="what is function, derivative, both, got 'slopes'"):
        drawn({"names": ["relu"], "what": "slopes"}, tmp_path)
    with pytest.raises(UnknownName, match="relo"):
        drawn({"names": ["relo"]}, tmp_path)


@pytest.mark.parametrize("item", ["003.fig3", "003.fig5"])
def test_the_papers_functions(tmp_path, item):
    one = experiment(item)
    _, found = drawn(one.options, tmp_path)
    assert "ReLU" in found
    assert len(found) == (2 if item == "003.fig3" else 6)


@pytest.mark.slow
def test_signals_are_those_of_the_measure_and_go_on(tmp_path, monkeypatch):
    options = {**experiment("004.fig1c").options, "densities": [0.1], "model": {"name": "lenet-300-100"},
               "input_shape": [1, 6, 6]}  # fmt: skip
    drawn, draw = [], signal.Propagation.draw
    monkeypatch.setattr(signal.Propagation, "draw", lambda self, key: drawn.append(key) or draw(self, key))

    def call(draws):
        drawn.clear()
        made = makers["signal"](options, Scale("few", draws=draws), tmp_path, lambda done, of: None)
        return made, len(drawn)

    assert call(2)[1] == 2 * 4  # three initialisations at the density, and the dense network
    (figure, *_, table), then = call(3)
    assert then == 4
    assert [row[0] for row in table.rows] == ["dense", "dense", "liu", "fans"]
    assert "output deviation" in figure.svg
    model = build(validate(RunSpec, {"model": options["model"]}), (1, 6, 6), 10).model
    wanted = signal_propagation(
        model, (1, 6, 6), [0.1], ["dense", "liu", "fans"], draws=3, scheme=Scheme("he", "normal", "in"),
        **signal.SETTINGS,
    )  # fmt: skip
    with (tmp_path / "figures" / "signal.csv").open() as file:
        rows = {(row["initialisation"], float(row["density"])): float(row["rms"]) for row in csv.DictReader(file)}
    assert rows == pytest.approx({(point.initialisation, point.density): point.rms for point in wanted})

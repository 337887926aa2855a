"""Scales: every rung is smaller, every rule changes what it says and nothing else."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import pairwise
from math import ceil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseflow.core import BadValue
from sparseflow.reproduce.estimate import choose
from sparseflow.reproduce.experiment import experiment
from sparseflow.reproduce.scale import LADDER, NAMED, Scale, minutes_of, scale_named
from sparseflow.reproduce.shrink import papers_sizes, shrunk
from sparseflow.reproduce.words import rules_in_words

TABLE = experiment("001.table3.3a").parts[0].content
ARMS = {
    "kind": "arms",
    "base": {
        "data": {"name": "mnist", "train_limit": 50_000},
        "model": {"name": "lenet-5"},
        "optimizer": {"lr": 0.05, "schedule": {"name": "step", "milestones": [10, 20], "warmup_epochs": 2}},
        "train": {"epochs": 30},
    },
    "seeds": [3, 4, 5, 6, 7],
    "likeness": {"reference": "pruned", "arms": ["pruned"], "points": 21},
    "arms": {
        "pruned": {"mask": {"density": 0.05, "gradual": {"start": 3000, "end": 7000, "every": 100}}},
        "late": {"mask": {"inherited": {"run": "pruned", "weights": "rewound", "rewind_step": 2000}}},
        "RigL": {"mask": {"density": 0.05}, "rewire": {"rule": "rigl", "every": 500}},
        "ghost": {"tost": {"neurons": True, "until": 15, "rescale": {}}},
    },
}


def test_the_full_scale_changes_nothing_but_what_defaults_say() -> None:
    assert shrunk(TABLE, LADDER[0], papers_sizes)["train"] == TABLE["train"]
    found = shrunk(ARMS, LADDER[0], papers_sizes)
    assert found["arms"] == ARMS["arms"]
    assert found["base"] == ARMS["base"]
    assert found["seeds"] == [3, 4, 5, 6, 7]


def test_every_rung_asks_for_less_than_the_one_before() -> None:
    for above, below in pairwise(LADDER):
        assert above.epochs <= below.epochs
        assert above.width <= below.width
        for name in ("examples", "tests", "seeds", "points", "dense_widths", "samples", "draws"):
            upper, lower = getattr(above, name), getattr(below, name)
            assert upper is None or (lower is not None and lower <= upper), (above.name, name)
        assert above != below


def test_steps_shrink_with_epochs_and_data_and_epochs_with_epochs() -> None:
    scale = Scale("x", epochs=10, examples=6_250, points=4, seeds=2)
    found = shrunk(ARMS, scale, papers_sizes)
    base, arms = found["base"], found["arms"]
    assert base["train"]["epochs"] == 3
    assert base["optimizer"]["schedule"]["milestones"] == [1.0, 2.0]
    assert base["optimizer"]["schedule"]["warmup_epochs"] == pytest.approx(0.2)
    ratio = 3 * ceil(6_250 / 128) / (30 * ceil(50_000 / 128))
    assert arms["pruned"]["mask"]["gradual"] == {
        "start": int(3000 * ratio), "end": int(7000 * ratio), "every": max(1, int(100 * ratio)),
    }  # fmt: skip
    assert arms["late"]["mask"]["inherited"]["rewind_step"] == int(2000 * ratio)
    assert arms["RigL"]["rewire"]["every"] == int(500 * ratio)
    assert arms["ghost"]["tost"] == {"neurons": True, "until": 1.5, "rescale": {"iterations": 18}}
    assert (found["seeds"], found["likeness"]["points"]) == ([3, 4], 9)


KNOBS = {
    "epochs": 2, "examples": 1_024, "tests": 500, "width": 4, "seeds": 1, "points": 3, "dense_widths": 2,
}  # fmt: skip


@pytest.mark.parametrize("knob", KNOBS)
def test_every_number_of_a_scale_changes_the_study(knob: str) -> None:
    plain = Scale("x")
    # Batches and the default width are written out at any scale but the full one.
    assert shrunk(TABLE, replace(plain, **{knob: KNOBS[knob]}), papers_sizes) != shrunk(TABLE, plain, papers_sizes)


def test_samples_and_draws_are_of_searches_and_makers() -> None:
    search = {"kind": "search", "base": {"data": {"name": "digits"}}, "samples": 50}
    assert shrunk(search, Scale("x", samples=7), papers_sizes)["samples"] == 7
    assert {f.name for f in fields(Scale)} - {"name", "samples", "draws"} == set(KNOBS)


def test_large_data_are_replaced_below_the_full_scale_and_only_there() -> None:
    content = {
        "kind": "arms",
        "base": {
            "data": {"name": "imagenet", "augment": True, "crop": "resized"},
            "model": {"name": "resnet-50", "stem": "imagenet"},
            "optimizer": {"lr": 1.6},
            "train": {"epochs": 102, "batch_size": 4096},
        },
        "arms": {"dense": {}, "small": {"model": {"width": 27}}},
    }
    assert shrunk(content, LADDER[0], papers_sizes)["base"]["data"]["name"] == "imagenet"
    small = shrunk(content, scale_named("small"), papers_sizes)
    assert small["base"]["data"] == {"name": "cifar-100", "augment": True, "train_limit": 2_048, "test_limit": 2_000}
    assert small["base"]["model"] == {"name": "resnet-50", "width": 8}
    assert small["base"]["train"]["batch_size"] == 256
    assert small["base"]["optimizer"]["lr"] == pytest.approx(1.6 * 256 / 4096)
    assert small["arms"]["small"]["model"]["width"] == 3  # 27 of 64, as 3 of 8


def test_other_data_are_taken_everywhere() -> None:
    found = shrunk(TABLE, LADDER[0], papers_sizes, data="digits")
    assert found["data"]["name"] == "digits"
    crossed = {
        "kind": "search",
        "base": {"data": {"name": "cifar-10"}},
        "cross": {"base.data.name": ["cifar-10", "cifar-100"]},
    }
    assert shrunk(crossed, LADDER[0], papers_sizes, data="digits")["cross"]["base.data.name"] == ["digits"]


@given(st.integers(1, 3000), st.integers(1, 200))
def test_widths_and_epochs_never_grow_nor_vanish(number: int, factor: int) -> None:
    scale = Scale("x", epochs=factor, width=factor)
    for made in (scale.shorter(number), scale.perceptron(number), scale.channels(number)):
        assert 1 <= made <= number


def test_names_and_numbers_of_scales() -> None:
    assert scale_named("full") is scale_named("0") is LADDER[0]
    assert scale_named("small") is scale_named("6")
    assert [minutes_of(text) for text in ("small", "minutes=30", "minutes=0.5")] == [None, 30.0, 0.5]
    with pytest.raises(BadValue, match=r"full, medium, small, a rung from 0 to 10, or minutes=N, got 'tiny'"):
        scale_named("tiny")
    for text in ("minutes=", "minutes=-1", "minutes=nan", "minutes=soon"):
        with pytest.raises(BadValue, match="number above 0"):
            minutes_of(text)


@given(st.lists(st.floats(0.1, 1e5), min_size=2, max_size=9), st.floats(0.01, 2e3))
def test_the_largest_rung_that_fits_is_chosen_and_few_are_timed(times: list[float], minutes: float) -> None:
    ladder = [Scale(str(k), epochs=len(times) - k) for k in range(len(times))]
    seconds = dict(zip(ladder, sorted(times, reverse=True), strict=True))
    asked = []

    def timed(scale: Scale) -> float:
        asked.append(scale)
        return seconds[scale]

    found = choose(minutes, timed, seconds.__getitem__, ladder)
    fitting = [scale for scale in ladder if seconds[scale] <= 60 * minutes]
    assert found.scale == (fitting[0] if fitting else ladder[-1])
    assert found.seconds == seconds[found.scale]
    assert all(seconds[scale] <= 1.5 * 60 * minutes for scale in asked[1:])


def test_rules_are_said_of_what_they_change() -> None:
    table, figure, plot = (experiment(name) for name in ("001.table3.3a", "001.fig3.3a", "001.figA.9a"))
    assert rules_in_words(LADDER[0], table) == ["At the paper's own scale."]
    assert "Searches" not in " ".join(rules_in_words(LADDER[-1], figure))
    assert "2 of the five dense widths." in rules_in_words(LADDER[-1], table)
    assert rules_in_words(LADDER[-1], plot) == []
    assert rules_in_words(LADDER[0], table, "digits")[0] == "Trained on digits in place of the paper's data."


def test_the_docs_have_the_ladder() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reproduce.md").read_text(encoding="utf-8")
    for k, scale in enumerate(LADDER):
        bounds = (scale.seeds, scale.points, scale.dense_widths, scale.samples, scale.draws)
        cells = [
            f"{k} ({scale.name})" if scale.name in NAMED else str(k), f"{scale.epochs:,}", _bound(scale.examples),
            _bound(scale.tests), str(scale.width), *map(_bound, bounds),
        ]  # fmt: skip
        assert f"| {' | '.join(cells)} |" in page


def _bound(value: int | None) -> str:
    return "all" if value is None else f"{value:,}"

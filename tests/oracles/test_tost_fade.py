"""The shapes by which ghosts fade, against their closed forms."""

from __future__ import annotations

from math import cos, pi

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseflow.core import BadValue, UnknownName
from sparseflow.tost import Fade, fades, until
from sparseflow.train import make_schedule


@pytest.mark.parametrize("end", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("shape", fades.names)
def test_a_fade_is_pure_falls_and_ends_where_it_says(shape, end):
    fade = Fade(shape, end)
    values = [fade(step) for step in range(end + 3)]
    assert values[end:] == [0.0] * 3
    assert values[end - 1] == fades.entry(shape).facts["ends_at"]  # exactly
    assert end == 1 or values[0] == 1.0
    assert values == sorted(values, reverse=True)
    assert [fade(step) for step in reversed(range(end + 3))] == values[::-1]
    assert [fade.over(step) for step in range(end + 3)] == [step >= end for step in range(end + 3)]


@given(st.integers(2, 500), st.integers(0, 500), st.floats(0, 1), st.integers(1, 9))
def test_closed_forms(end, step, alpha, stairs):
    p = step / (end - 1)
    inside = step < end
    assert Fade("linear", end, alpha)(step) == pytest.approx(alpha * (1 - p) * inside, abs=1e-12)
    assert Fade("cosine", end, alpha)(step) == pytest.approx(alpha * (1 + cos(pi * p)) / 2 * inside, abs=1e-12)
    assert Fade("constant", end, alpha)(step) == alpha * inside
    assert Fade("constant", None, alpha)(step) == alpha
    fallen = sum(p * stairs >= k for k in range(1, stairs + 1))
    assert Fade("step", end, alpha, stairs)(step) == pytest.approx(alpha * (1 - fallen / stairs) * inside, abs=1e-12)


def test_four_stairs_by_default():
    assert [Fade("step", 5)(step) for step in range(6)] == [1, 0.75, 0.5, 0.25, 0, 0]


@pytest.mark.parametrize(("milestone", "per_epoch"), [(90, 391), (2.5, 3), (1, 1), (0.3, 7)])
def test_ghosts_are_gone_at_the_first_decayed_step(milestone, per_epoch):
    rate = make_schedule("step", 180 * per_epoch, per_epoch, milestones=(milestone, 135))
    fade = until(milestone, per_epoch, epochs=180)
    first = next(step for step in range(180 * per_epoch) if rate(step) < 1)
    assert fade.end == first
    assert until(90, 10, epochs=180, shape="step", alpha=0.5, stairs=2) == Fade("step", 900, 0.5, 2)


def test_bad_fades():
    for arguments in ({"shape": "linaer", "end": 4}, {"shape": "", "end": 4}):
        with pytest.raises(UnknownName, match="linear"):
            Fade(**arguments)
    for alpha in (-0.1, 1.1, float("nan")):
        with pytest.raises(BadValue, match=r"alpha must be in \[0, 1\]"):
            Fade(end=3, alpha=alpha)
    with pytest.raises(BadValue, match="'linear' needs an end"):
        Fade()
    with pytest.raises(BadValue, match="end of a fade"):
        Fade(end=0)
    with pytest.raises(BadValue, match="has no stairs"):
        Fade(end=3, stairs=2)
    with pytest.raises(BadValue, match="stairs must be at least 1"):
        Fade("step", 3, stairs=0)
    for epoch in (0.0, -1.0, 180.5, float("nan")):
        with pytest.raises(BadValue, match="gone within the training of 180 epochs"):
            until(epoch, 10, epochs=180)

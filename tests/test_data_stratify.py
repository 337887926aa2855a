"""Stratified sampling against the textbook rule in exact fractions."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseflow.core import BadValue, stream
from sparseflow.data import stratified
from sparseflow.data.stratify import complement, fixed_split

labels = st.lists(st.integers(0, 5), min_size=1, max_size=60)


def largest_remainder(counts: dict[int, int], n: int) -> dict[int, int]:
    total = sum(counts.values())
    exact = {label: Fraction(count * n, total) for label, count in counts.items()}
    share = {label: int(value) for label, value in exact.items()}
    waiting = sorted(counts, key=lambda label: (-(exact[label] - share[label]), label))
    for label in waiting[: n - sum(share.values())]:
        share[label] += 1
    return share


@settings(max_examples=150, deadline=None)
@given(labels, st.data())
def test_counts_are_the_largest_remainder_shares(y: list[int], data: st.DataObject) -> None:
    n = data.draw(st.integers(0, len(y)))
    seed = data.draw(st.integers(0, 1000))
    taken = stratified(torch.tensor(y), n, stream(seed, "test")).tolist()
    assert taken == sorted(set(taken))
    assert len(taken) == n
    assert Counter(y[i] for i in taken) == Counter(largest_remainder(Counter(y), n))


def test_equal_remainders_go_to_the_lower_class() -> None:
    taken = stratified(torch.tensor([3, 3, 1, 1, 2, 2]), 1, stream(0, "test"))
    assert taken.item() in (2, 3)


def test_every_member_of_a_class_can_be_drawn_and_equally_often() -> None:
    y = torch.tensor([0, 1] * 5)
    counts = torch.zeros(10)
    for seed in range(2000):
        counts[stratified(y, 4, stream(seed, "test"))] += 1
    assert counts.sum() == 8000
    assert ((counts - 800).abs() < 5 * (2000 * 0.4 * 0.6) ** 0.5).all()


def test_same_stream_same_sample_and_smaller_samples_are_nested() -> None:
    y = torch.arange(1000) % 7
    small, again, large = (stratified(y, n, stream(3, "test")).tolist() for n in (70, 70, 350))
    assert small == again
    assert set(small) < set(large)
    assert small != stratified(y, 70, stream(4, "test")).tolist()


@pytest.mark.parametrize("n", [-1, 4])
def test_more_than_there_is_or_less_than_none_is_refused(n: int) -> None:
    with pytest.raises(BadValue, match=f"cannot take {n} of 3"):
        stratified(torch.tensor([0, 1, 1]), n, stream(0, "test"))


def test_complement_and_fixed_split_partition_the_indices() -> None:
    assert complement(torch.tensor([1, 3]), 5).tolist() == [0, 2, 4]
    y = torch.arange(103) % 4
    train, test = fixed_split(y)
    assert sorted(train.tolist() + test.tolist()) == list(range(103))
    assert len(train) == 82
    assert torch.equal(fixed_split(y)[1], test)

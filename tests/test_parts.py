"""Parts of an analysis in a folder: found again bit for bit, whatever a kill or a damage left."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sparseflow.core import BadStore
from sparseflow.measure.curvature import Matrix
from sparseflow.study import PartFile

KEY = {"analysis": "x", "values": [0.1, 3], "name": "é"}


@pytest.fixture
def opened():
    files = []

    def open_one(folder):
        files.append(PartFile(folder))
        return files[-1]

    yield open_one
    for file in files:
        file.close()


def never():
    pytest.fail("made twice")


def test_a_part_is_made_once_and_comes_back_bit_for_bit(opened, tmp_path):
    value = {"a": [0.1 + 0.2, 1e-320, -0.0], "b": None, "c": math.inf}
    parts = opened(tmp_path)
    assert parts.take(KEY, lambda: value) == value
    assert parts.take(KEY, never) == value
    assert math.isnan(parts.take({**KEY, "k": 1}, lambda: math.nan))
    parts.close()
    again = opened(tmp_path)
    assert again.take(dict(reversed(KEY.items())), never) == value
    assert math.copysign(1.0, again.take(KEY, never)["a"][2]) == -1.0
    assert math.isnan(again.take({**KEY, "k": 1}, never))
    assert again.take({**KEY, "values": [0.1, 4]}, lambda: "other") == "other"


def test_a_line_that_a_kill_cut_is_made_again_and_a_damaged_one_is_said(opened, tmp_path):
    parts = opened(tmp_path)
    for k in range(3):
        parts.take({"k": k}, lambda k=k: k)
    parts.close()
    path = tmp_path / "parts.jsonl"
    whole = path.read_text()
    path.write_text(whole[:-4])
    again = opened(tmp_path)
    assert [again.take({"k": k}, never) for k in (0, 1)] == [0, 1]
    assert again.take({"k": 2}, lambda: "anew") == "anew"
    again.close()
    path.write_text(whole.replace('"part"', '"prat"', 1))
    with pytest.raises(BadStore, match=r"parts.jsonl is damaged; remove it, or give another --out"):
        opened(tmp_path)


@pytest.mark.parametrize("lost", [0, 1, 70 * 8, 70 * 8 * 33, 70 * 8 * 69, 10**6])
def test_a_matrix_goes_on_from_whatever_is_left_of_it(opened, tmp_path, lost):
    draw = torch.Generator().manual_seed(0)
    entries = torch.randn(70, 70, generator=draw, dtype=torch.float64)
    matrix = Matrix(entries + entries.T)
    parts = opened(tmp_path)
    first = parts.matrix(KEY, matrix)
    np.testing.assert_allclose(first, matrix.entries.numpy(), rtol=1e-12)
    (path,) = tmp_path.glob("matrix-*.npy")
    with path.open("r+b") as file:
        file.truncate(max(0, path.stat().st_size - lost))
    steps = []
    again = parts.matrix(KEY, matrix, lambda done, size: steps.append((done, size)))
    np.testing.assert_array_equal(again, first)
    assert steps[-1] == (70, 70)
    assert len(steps) == {0: 1, 1: 1, 560: 1, 560 * 33: 2, 560 * 69: 3, 10**6: 3}[lost]
    parts.forget(KEY)
    assert not path.exists()


def test_a_study_s_folder_is_left_alone(opened, tmp_path):
    (tmp_path / "results.db").touch()
    with pytest.raises(BadStore, match="give the analysis another --out"):
        opened(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["results.db"]

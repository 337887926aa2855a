"""Turning activations between batch first and batch last."""

from __future__ import annotations

import pytest
import torch

from sparseflow.sparse import batch_first, native
from sparseflow.sparse.layout import batch_last, packed

SHAPES = ((5, 7), (33, 20), (4, 3, 2, 5), (1, 6), (6, 1), (0, 3))


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("shape", SHAPES)
def test_both_ways(shape, dtype, there, monkeypatch):
    if not there:
        monkeypatch.setattr(native, "available", lambda: False)
    x = torch.arange(torch.Size(shape).numel(), dtype=dtype).view(shape)
    last = batch_last(x)
    assert torch.equal(last, x.movedim(0, -1))
    assert last.is_contiguous()
    flowing = last.movedim(-1, 0)
    assert batch_last(flowing).data_ptr() == last.data_ptr(), "no copy"
    back = batch_first(flowing)
    assert torch.equal(back, x)
    assert back.is_contiguous()
    assert batch_first(x) is x
    for other in (x.movedim(0, -1), last):
        assert torch.equal(packed(other), last)
        assert packed(other).is_contiguous()


def test_gradients_come_in_the_order_of_what_they_belong_to():
    for turn, stored in ((batch_last, False), (batch_first, True)):
        x = torch.randn(5, 7, dtype=torch.float64)
        x = (x.t().contiguous().t() if stored else x).requires_grad_()
        y = turn(x)
        (g,) = torch.autograd.grad((y**3).sum(), x, create_graph=True)
        torch.testing.assert_close(g, 3 * x.detach() ** 2)
        assert g.stride() == x.stride()
        assert torch.autograd.gradcheck(turn, (x,))
        assert torch.autograd.gradgradcheck(turn, (x,))
    frozen = torch.randn(5, 7)
    assert not batch_last(frozen).requires_grad

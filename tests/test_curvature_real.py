"""The spectrum of LeNet-5 on MNIST, exact and from a twentieth of the products."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid
from torch.nn import functional as F

from real_data import real_data_root
from sparseflow.core import weight_shapes
from sparseflow.data import load
from sparseflow.init import from_fans_
from sparseflow.masks import count, random_masks
from sparseflow.measure import Hessian
from sparseflow.measure.curvature import density, extremes, quadrature, spectrum
from sparseflow.models import models

ROOT = real_data_root()


@pytest.mark.slow
@pytest.mark.skipif(ROOT is None or not (Path(ROOT) / "mnist").is_dir(), reason="no mnist/ in SPARSEFLOW_DATA")
def test_a_twentieth_of_the_products_draws_the_density():
    dataset = load("mnist", ROOT)
    x = F.pad(dataset.train.x[:50].double() / 255, (2, 2, 2, 2)).sub_(0.1).div_(0.3)
    y = dataset.train.y[:50].long()
    net = models["lenet-5"]((1, 32, 32), 10)
    assert sum(p.numel() for p in net.parameters()) == 61_706
    masks = random_masks(weight_shapes(net), count("erk", weight_shapes(net), 0.01), seed=0)
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    from_fans_(net, masks)
    hessian = Hessian(net, F.cross_entropy, [(x, y)], masks, dtype=torch.float64, compact=True)
    values = spectrum(hessian)
    assert len(values) == hessian.size == hessian.products == 615
    found = quadrature(hessian, probes=3, steps=hessian.size // 20 // 3)
    assert found.products <= hessian.size / 20
    ends = extremes(hessian, 2, 2)
    np.testing.assert_allclose(ends.top.values, values[::-1][:2], atol=1e-6 * values[-1])
    np.testing.assert_allclose(ends.bottom.values, values[:2], atol=1e-6 * values[-1])
    for estimate, exact in ((found.trace(), values.sum()), (found.trace(lambda t: t**2), (values**2).sum())):
        assert abs(estimate.value - exact) < 4.5 * estimate.error
    smooth = density(values)
    apart = trapezoid(abs(found.density(at=smooth.at, width=smooth.width).values - smooth.values), smooth.at)
    assert apart < 0.1  # of 2, which two densities without overlap have

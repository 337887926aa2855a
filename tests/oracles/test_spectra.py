"""Lanczos' method, extreme eigenvalues, quadrature and densities against numpy's eigenvalues."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid
from scipy.stats import norm

from curved import NETS, active_hessian, curved
from sparseflow.core import BadValue, Metric, SparseflowError
from sparseflow.measure import CurvatureProbe, Hessian
from sparseflow.measure.curvature import Krylov, Matrix, density, distance, extremes, hutchinson, quadrature
from sparseflow.measure.curvature.quadrature import signs

every_net = pytest.mark.parametrize("net", NETS)


def with_eigenvalues(values, seed: int = 0) -> tuple[Matrix, torch.Tensor]:
    """A matrix of these eigenvalues in a random orthonormal basis, the columns of the second."""
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64))
    a = q @ torch.diag(torch.as_tensor(values, dtype=torch.float64)) @ q.T
    return Matrix((a + a.T) / 2), q


def gaussian(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Lanczos' method -----------------------------------------------------------------------------------------------------


def test_the_basis_is_orthonormal_and_makes_the_matrix_tridiagonal():
    """Also after the extreme eigenvalue has converged, where Lanczos' method alone loses orthogonality."""
    matrix, _ = with_eigenvalues([*np.linspace(0, 1, 79), 1e4])
    krylov = Krylov(matrix, gaussian(80))
    for _ in range(60):
        krylov.step()
    q = krylov.basis
    torch.testing.assert_close(q @ q.T, torch.eye(60, dtype=torch.float64), rtol=0, atol=1e-13)
    t = q @ matrix.entries @ q.T
    outside = t - torch.diag(t.diagonal()) - torch.diag(t.diagonal(1), 1) - torch.diag(t.diagonal(-1), -1)
    assert outside.abs().max() < 1e-8
    values, _ = krylov.ritz()
    np.testing.assert_allclose(values, np.linalg.eigvalsh(t.numpy()), atol=1e-8)


def test_a_space_that_closes_says_so():
    matrix, q = with_eigenvalues([3.0, 2.0, 1.0, 0.5, 0.0])
    krylov = Krylov(matrix, q[:, 0] + q[:, 3])
    krylov.step()
    assert not krylov.closed
    krylov.step()
    assert krylov.closed
    np.testing.assert_allclose(krylov.ritz()[0], [0.5, 3.0])
    krylov.restart(gaussian(5))
    while not krylov.closed:
        krylov.step()
    np.testing.assert_allclose(krylov.ritz()[0], [0.0, 0.5, 1.0, 2.0, 3.0], atol=1e-12)


def test_bad_starts_and_products_are_refused():
    with pytest.raises(BadValue, match="needs a finite length above 0, got 0"):
        Krylov(Matrix(torch.eye(3)), torch.zeros(3))

    class Broken(Matrix):
        def matmat(self, vectors):
            return vectors * float("nan")

    with pytest.raises(BadValue, match="a product of the matrix with a finite vector is not finite"):
        extremes(Broken(torch.eye(3)))
    with pytest.raises(BadValue, match=r"is square, got shape \(2, 3\)"):
        Matrix(torch.zeros(2, 3))
    with pytest.raises(BadValue, match="the matrix is not symmetric"):
        Matrix(torch.tensor([[0.0, 1.0], [0.0, 0.0]]))


# Extreme eigenvalues -------------------------------------------------------------------------------------------------


@every_net
@pytest.mark.parametrize(("top", "bottom"), [(1, 1), (5, 3), (0, 2)])
def test_extreme_eigenvalues_are_numpys(net, top, bottom):
    of = curved(net)
    h = active_hessian(of)
    expected = np.linalg.eigvalsh(h.numpy())
    scale = abs(expected).max()
    found = extremes(Hessian(*of.arguments), top, bottom)
    for pairs, values in ((found.top, expected[::-1][:top]), (found.bottom, expected[:bottom])):
        np.testing.assert_allclose(pairs.values.numpy(), values, rtol=0, atol=1e-6 * scale)
        rest = h @ pairs.vectors - pairs.vectors * pairs.values
        torch.testing.assert_close(pairs.residuals, rest.norm(dim=0), rtol=1e-3, atol=1e-9 * scale)
        assert (pairs.residuals <= 1.1e-6 * scale).all()
        torch.testing.assert_close(pairs.vectors.norm(dim=0), torch.ones(len(values), dtype=torch.float64))


def test_few_steps_are_enough_where_eigenvalues_stand_out():
    matrix, q = with_eigenvalues([100.0, 50.0, *np.linspace(-1, 1, 997), -30.0])
    found = extremes(matrix, top=2, bottom=1)
    np.testing.assert_allclose(found.top.values, [100.0, 50.0], atol=1e-8)
    np.testing.assert_allclose(found.bottom.values, [-30.0], atol=1e-8)
    assert found.steps <= 25
    cosines = (q[:, [0, 1, 999]] * torch.cat([found.top.vectors, found.bottom.vectors], 1)).sum(0).abs()
    torch.testing.assert_close(cosines, torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-8)


@pytest.mark.parametrize("values", [[3, 3, 1, 0, 0, 0], [2] * 5, [0] * 4, [7], [5, 5, 5, -5, -5, 1]], ids=str)
def test_eigenvalues_that_come_several_times_are_found_as_often(values):
    matrix, _ = with_eigenvalues(values)
    ordered = sorted(values, reverse=True)
    top = (len(values) + 1) // 2
    found = extremes(matrix, top, len(values) - top)
    np.testing.assert_allclose(found.top.values, ordered[:top], atol=1e-10)
    np.testing.assert_allclose(found.bottom.values, ordered[top:][::-1], atol=1e-10)
    np.testing.assert_allclose(extremes(matrix, min(2, len(values))).top.values, ordered[:2], atol=1e-10)


def test_a_large_matrix_of_low_rank_needs_few_steps():
    found = extremes(with_eigenvalues([9, 4, 4, *[0] * 397])[0], top=3, bottom=1)
    np.testing.assert_allclose([*found.top.values, *found.bottom.values], [9, 4, 4, 0], atol=1e-10)
    assert found.steps < 20


def test_a_small_gap_takes_steps_that_must_be_allowed():
    matrix, _ = with_eigenvalues(np.linspace(0, 1, 300))
    with pytest.raises(
        SparseflowError, match=r"2 \+ 1 eigenvalues did not converge in 10 steps, which leave residuals"
    ):
        extremes(matrix, 2, 1, max_steps=10)
    with pytest.raises(SparseflowError, match=r"3 \+ 0 eigenvalues did not converge in 2 steps; raise max_steps"):
        extremes(matrix, 3, max_steps=2)
    rough = extremes(matrix, 1, tolerance=1e-2)
    assert rough.steps < extremes(matrix, 1).steps
    assert rough.top.values[0] == pytest.approx(1, abs=1e-2)


def test_more_eigenvalues_than_there_are_are_refused():
    hessian = Hessian(*curved("masked").arguments)
    with pytest.raises(BadValue, match=r"asked for 30 \+ 8 eigenvalues of a matrix that has 37; ask for fewer"):
        extremes(hessian, 30, 8)
    for top, bottom, message in ((0, 0, "at least 1, got 0"), (-1, 3, "must not be negative, got -1 and 3")):
        with pytest.raises(BadValue, match=message):
            extremes(hessian, top, bottom)


def test_float32_reaches_its_own_tolerance():
    matrix, _ = with_eigenvalues([10.0, *np.linspace(-1, 1, 200)])
    found = extremes(Matrix(matrix.entries.float()), 1, 1)
    assert found.top.values[0] == pytest.approx(10, abs=1e-3)
    assert found.bottom.values[0] == pytest.approx(-1, abs=1e-2)


@pytest.mark.parametrize("batch_norm", ["eval", "train"])
def test_the_probe_reports_the_ends_of_the_spectrum(batch_norm):
    of = curved("norm", density=0.5)
    h = active_hessian(of, training=batch_norm == "train")
    values = np.linalg.eigvalsh(h.numpy())
    g = Hessian(*of.arguments, batch_norm=batch_norm).gradient
    for compact in (False, True):
        probe = CurvatureProbe(of.case.loss, tuple(of.batches), 2, 1, batch_norm, compact)
        found = probe(of.model, of.masks)
        assert found == {
            Metric("top_eigenvalue_1"): pytest.approx(values[-1], abs=1e-6 * values[-1]),
            Metric("top_eigenvalue_2"): pytest.approx(values[-2], abs=1e-6 * values[-1]),
            Metric("bottom_eigenvalue_1"): pytest.approx(values[0], abs=1e-6 * values[-1]),
            Metric("gradient_curvature"): pytest.approx(float(g @ h @ g / (g @ g)), rel=1e-8),
        }


# Quadrature ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_moments_are_the_exact_ones_within_their_errors(seed):
    """Of 20 nets by 100 probes: tr H and tr H^2."""
    of = curved(NETS[seed % len(NETS)], seed, density=0.4)
    h = active_hessian(of)
    found = quadrature(Hessian(*of.arguments), probes=100, steps=2, seed=seed)
    for estimate, exact in (
        (found.trace(), float(h.trace())),
        (found.trace(lambda t: t**2), float((h**2).sum())),
    ):
        assert 0 < estimate.error < 0.2 * float(h.norm()) * max(1.0, float(h.norm()))
        assert abs(estimate.value - exact) < 4.5 * estimate.error
    assert found.products == 200


def test_a_probes_moments_are_its_own_products():
    """v' H^k v / size, for k up to twice the steps less one, and no farther."""
    matrix, _ = with_eigenvalues(np.linspace(-1, 2, 30))
    found = quadrature(matrix, probes=3, steps=4, seed=5)
    for k in range(9):
        power = torch.linalg.matrix_power(matrix.entries, k)
        for probe, (t, w) in enumerate(zip(found.nodes, found.weights, strict=True)):
            v = probe_signs(30, 5, probe)
            exact = float(v @ power @ v) / 30
            assert (w @ t**k == pytest.approx(exact, rel=1e-9)) == (k < 8), (k, probe)


def probe_signs(size: int, seed: int, probe: int) -> torch.Tensor:
    found = signs(size, seed, probe)
    assert set(found.tolist()) == {-1.0, 1.0}
    return found


def test_hutchinsons_trace():
    h = active_hessian(curved("mlp"))
    matrix = Matrix(h)
    found = hutchinson(matrix, probes=200, seed=1)
    each = [float(v @ h @ v) for v in (probe_signs(len(h), 1, k) for k in range(200))]
    assert found.value == pytest.approx(np.mean(each))
    assert found.error == pytest.approx(np.std(each, ddof=1) / np.sqrt(200))
    # Its variance over signs is 2 sum of the squares off the diagonal.
    deviation = float((2 * (h.fill_diagonal_(0) ** 2).sum()).sqrt())
    assert found.error == pytest.approx(deviation / np.sqrt(200), rel=0.2)
    assert np.isnan(hutchinson(matrix, probes=1).error)
    diagonal = hutchinson(Matrix(torch.diag(torch.tensor([1.0, 2.0, 4.0]))), probes=3)
    assert (diagonal.value, diagonal.error) == (7.0, 0.0)


def test_probes_and_seeds_are_independent_and_repeatable():
    matrix, _ = with_eigenvalues(np.linspace(0, 1, 40))
    one, same, other = (quadrature(matrix, probes=2, steps=5, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(one.nodes, same.nodes)
    assert not np.allclose(one.nodes[0], one.nodes[1])
    assert not np.allclose(one.nodes[0], other.nodes[0])
    more = quadrature(matrix, probes=3, steps=5)
    assert np.array_equal(more.nodes[:2], one.nodes)
    with pytest.raises(BadValue, match="probes must be at least 1"):
        quadrature(matrix, probes=0)
    with pytest.raises(BadValue, match="steps must be at least 1"):
        quadrature(matrix, steps=0)


# Densities -----------------------------------------------------------------------------------------------------------


def test_the_density_is_a_sum_of_gaussians():
    values = np.array([-1.0, 0.0, 0.0, 4.0])
    at = np.linspace(-2, 5, 11)
    found = density(values, at=at, width=0.3)
    np.testing.assert_allclose(found.values, norm.pdf(at[:, None], values, 0.3).mean(1))
    assert found.errors is None
    default = density(values)
    assert default.width == pytest.approx(0.05)
    assert trapezoid(default.values, default.at) == pytest.approx(1, abs=1e-4)
    assert density([2.0, 2.0]).width == pytest.approx(0.02)
    many = np.random.default_rng(0).normal(size=3000)
    np.testing.assert_allclose(density(many, at=[0.5], width=0.2).values, norm.pdf(0.5, many, 0.2).mean())
    with pytest.raises(BadValue, match="width must be positive, got 0"):
        density(values, width=0)
    with pytest.raises(BadValue, match="no eigenvalues"):
        density([])


def test_the_distance_of_two_densities_is_the_integral_of_their_difference():
    at = np.linspace(-10, 20, 3001)
    here = density([0.0], at=at, width=1.0)
    for apart in (0.0, 0.5, 3.0, 12.0):
        there = density([apart], at=at, width=1.0)
        assert distance(here, there) == pytest.approx(2 * (2 * norm.cdf(apart / 2) - 1), abs=1e-4)
    assert distance(here, density([0.0, 12.0], at=at, width=1.0)) == pytest.approx(1, abs=1e-4)
    with pytest.raises(BadValue, match="give both the same at="):
        distance(here, density([0.0]))


def test_the_density_by_quadrature_is_the_exact_one_within_its_errors():
    values = np.concatenate([np.random.default_rng(1).normal(0, 0.2, 180), np.linspace(2, 6, 20)])
    matrix, _ = with_eigenvalues(values)
    found = quadrature(matrix, probes=60, steps=60).density(width=0.3)
    exact = density(values, at=found.at, width=0.3)
    assert trapezoid(found.values, found.at) == pytest.approx(1, abs=1e-3)
    assert (abs(found.values - exact.values) < 4.5 * found.errors + 1e-6).all()
    assert found.errors.max() < 0.1 * exact.values.max()
    assert np.isnan(quadrature(matrix, probes=1, steps=5).density().errors).all()


def test_quadrature_of_all_steps_has_every_eigenvalue():
    matrix, q = with_eigenvalues([5.0, 3.0, 1.0, -2.0])
    found = quadrature(matrix, probes=1, steps=50)
    np.testing.assert_allclose(found.nodes[0], [-2, 1, 3, 5], atol=1e-12)
    np.testing.assert_allclose(found.weights[0][::-1], (q.T @ probe_signs(4, 0, 0)) ** 2 / 4, atol=1e-12)

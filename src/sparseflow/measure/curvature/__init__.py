"""Curvature of the loss over the active weights: products, spectra, extreme eigenvalues, predicted steps."""

from sparseflow.measure.curvature.descent import PredictedStep, alignment, predicted_step
from sparseflow.measure.curvature.extremes import Eigenpairs, Extremes, extremes
from sparseflow.measure.curvature.hessian import Hessian
from sparseflow.measure.curvature.lanczos import Krylov
from sparseflow.measure.curvature.quadrature import Estimate, Quadrature, hutchinson, quadrature
from sparseflow.measure.curvature.spectrum import Density, density, distance, spectrum
from sparseflow.measure.curvature.symmetric import Matrix, Symmetric

__all__ = [
    "Density",
    "Eigenpairs",
    "Estimate",
    "Extremes",
    "Hessian",
    "Krylov",
    "Matrix",
    "PredictedStep",
    "Quadrature",
    "Symmetric",
    "alignment",
    "density",
    "distance",
    "extremes",
    "hutchinson",
    "predicted_step",
    "quadrature",
    "spectrum",
]

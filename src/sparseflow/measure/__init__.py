"""Measurements of a network: gradient flow, curvature."""

from sparseflow.measure import curvature
from sparseflow.measure.coordinates import Coordinates
from sparseflow.measure.curvature import Hessian
from sparseflow.measure.gradient_flow import MEASURES, GradientFlow, LayerFlow, gradient_flow
from sparseflow.measure.probes import GradientFlowProbe

__all__ = [
    "MEASURES",
    "Coordinates",
    "GradientFlow",
    "GradientFlowProbe",
    "Hessian",
    "LayerFlow",
    "curvature",
    "gradient_flow",
]

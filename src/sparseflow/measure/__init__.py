"""Measurements of a network: gradient flow, curvature, landscapes, paths, similarity, activations."""

from sparseflow.measure import curvature, landscape, similarity
from sparseflow.measure.activations import Zeros, activation_zeros, by_stage
from sparseflow.measure.coordinates import Coordinates
from sparseflow.measure.curvature import Hessian
from sparseflow.measure.gradient_flow import MEASURES, GradientFlow, LayerFlow, gradient_flow
from sparseflow.measure.interpolate import Path, interpolate
from sparseflow.measure.outcome import Outcome, answers, outcome
from sparseflow.measure.probes import CurvatureProbe, GradientFlowProbe

__all__ = [
    "MEASURES",
    "Coordinates",
    "CurvatureProbe",
    "GradientFlow",
    "GradientFlowProbe",
    "Hessian",
    "LayerFlow",
    "Outcome",
    "Path",
    "Zeros",
    "activation_zeros",
    "answers",
    "by_stage",
    "curvature",
    "gradient_flow",
    "interpolate",
    "landscape",
    "outcome",
    "similarity",
]

"""Measurements of a network: gradient flow, signals, curvature, landscapes, paths, similarity, activations."""

from sparseflow.measure import curvature, landscape, similarity
from sparseflow.measure.activations import Zeros, activation_zeros, by_stage
from sparseflow.measure.coordinates import Coordinates
from sparseflow.measure.curvature import Hessian
from sparseflow.measure.gradient_flow import MEASURES, GradientFlow, LayerFlow, gradient_flow
from sparseflow.measure.interpolate import Path, interpolate
from sparseflow.measure.outcome import Outcome, answers, outcome
from sparseflow.measure.probes import AccuracyProbe, ActivationProbe, CurvatureProbe, GradientFlowProbe
from sparseflow.measure.signal import DENSE, DENSITIES, Draw, Key, Point, Propagation, points, signal_propagation
from sparseflow.measure.units import Shares, outputs_and_shares

__all__ = [
    "DENSE",
    "DENSITIES",
    "MEASURES",
    "AccuracyProbe",
    "ActivationProbe",
    "Coordinates",
    "CurvatureProbe",
    "Draw",
    "GradientFlow",
    "GradientFlowProbe",
    "Hessian",
    "Key",
    "LayerFlow",
    "Outcome",
    "Path",
    "Point",
    "Propagation",
    "Shares",
    "Zeros",
    "activation_zeros",
    "answers",
    "by_stage",
    "curvature",
    "gradient_flow",
    "interpolate",
    "landscape",
    "outcome",
    "outputs_and_shares",
    "points",
    "signal_propagation",
    "similarity",
]

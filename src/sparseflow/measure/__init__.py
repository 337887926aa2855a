"""Measurements of a network: gradient flow, signal propagation."""

from sparseflow.measure.gradient_flow import MEASURES, GradientFlow, LayerFlow, gradient_flow
from sparseflow.measure.probes import GradientFlowProbe
from sparseflow.measure.signal import DENSE, DENSITIES, Draw, Key, Point, Propagation, points, signal_propagation
from sparseflow.measure.units import Shares, outputs_and_shares

__all__ = [
    "DENSE",
    "DENSITIES",
    "MEASURES",
    "Draw",
    "GradientFlow",
    "GradientFlowProbe",
    "Key",
    "LayerFlow",
    "Point",
    "Propagation",
    "Shares",
    "gradient_flow",
    "outputs_and_shares",
    "points",
    "signal_propagation",
]

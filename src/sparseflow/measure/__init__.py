"""Measurements of a network: gradient flow."""

from sparseflow.measure.gradient_flow import MEASURES, GradientFlow, LayerFlow, gradient_flow
from sparseflow.measure.probes import GradientFlowProbe

__all__ = ["MEASURES", "GradientFlow", "GradientFlowProbe", "LayerFlow", "gradient_flow"]

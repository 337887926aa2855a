"""Gradients with respect to named weights, shared by gradient flow and every score that needs a gradient."""

from sparseflow.autodiff.gradients import mean_weight_gradients, weight_gradients

__all__ = ["mean_weight_gradients", "weight_gradients"]

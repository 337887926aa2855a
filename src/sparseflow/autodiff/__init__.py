"""Gradients and Hessian products with respect to named weights, shared by gradient flow, pruning and curvature."""

from sparseflow.autodiff.elsewhere import loss_at
from sparseflow.autodiff.gradients import mean_weight_gradients, weight_gradients
from sparseflow.autodiff.hessian import Slopes, hessian_product, mean_hessian_product

__all__ = ["Slopes", "hessian_product", "loss_at", "mean_hessian_product", "mean_weight_gradients", "weight_gradients"]

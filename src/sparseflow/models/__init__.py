"""Models that studies can name, always dense: masks stand beside them."""

from sparseflow.models.activations import SReLU, activations
from sparseflow.models.catalog import materialise, models, sketch
from sparseflow.models.dropout import Dropout
from sparseflow.models.mlp import MLP
from sparseflow.models.resnet import ResNet

__all__ = ["MLP", "Dropout", "ResNet", "SReLU", "activations", "materialise", "models", "sketch"]

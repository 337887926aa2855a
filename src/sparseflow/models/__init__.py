"""Models that studies can name, always dense: masks stand beside them."""

from sparseflow.models.activations import PSWISH_GAP, PSwish, SReLU, activations, pswish
from sparseflow.models.catalog import materialise, models, sketch
from sparseflow.models.dropout import Dropout
from sparseflow.models.imported import OF_THE_DATA, check_answer, check_place, code_digest, is_imported, make_imported
from sparseflow.models.lenet import LeNet5, LeNet300
from sparseflow.models.mlp import MLP, maximum_width
from sparseflow.models.mobilenet import MobileNetV1, MobileNetV2
from sparseflow.models.resnet import ResNet
from sparseflow.models.resnet_imagenet import ResNet18, ResNet50
from sparseflow.models.vgg import VGG16
from sparseflow.models.wide_resnet import WideResNet

__all__ = [
    "MLP",
    "OF_THE_DATA",
    "PSWISH_GAP",
    "VGG16",
    "Dropout",
    "LeNet5",
    "LeNet300",
    "MobileNetV1",
    "MobileNetV2",
    "PSwish",
    "ResNet",
    "ResNet18",
    "ResNet50",
    "SReLU",
    "WideResNet",
    "activations",
    "check_answer",
    "check_place",
    "code_digest",
    "is_imported",
    "make_imported",
    "materialise",
    "maximum_width",
    "models",
    "pswish",
    "sketch",
]

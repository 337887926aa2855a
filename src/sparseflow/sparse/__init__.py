"""Sparse execution: layers that hold and multiply active weights only."""

from sparseflow.sparse.choose import Execution, choose
from sparseflow.sparse.conv import CompactConv2d
from sparseflow.sparse.convert import Conversion, compact, expand
from sparseflow.sparse.crossover import worth_compacting
from sparseflow.sparse.layer import CompactLayer
from sparseflow.sparse.layout import batch_first
from sparseflow.sparse.linear import CompactLinear
from sparseflow.sparse.native import kernels
from sparseflow.sparse.structure import Structure

__all__ = [
    "CompactConv2d",
    "CompactLayer",
    "CompactLinear",
    "Conversion",
    "Execution",
    "Structure",
    "batch_first",
    "choose",
    "compact",
    "expand",
    "kernels",
    "worth_compacting",
]

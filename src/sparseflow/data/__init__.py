"""Data sets held in memory: read from their authors' own files, checked, split, normalised and augmented."""

from sparseflow.data.augment import crop_flip
from sparseflow.data.dataset import Dataset, Split
from sparseflow.data.known import datasets, load
from sparseflow.data.prepare import Prepared, prepare
from sparseflow.data.stratify import stratified

__all__ = ["Dataset", "Prepared", "Split", "crop_flip", "datasets", "load", "prepare", "stratified"]

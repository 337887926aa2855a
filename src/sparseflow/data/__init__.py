"""Data sets read from their authors' own files, checked, split, normalised and augmented; large ones are streamed."""

from sparseflow.data.augment import Crop, crop_flip, crops
from sparseflow.data.dataset import Dataset, Split
from sparseflow.data.decode import Watch
from sparseflow.data.known import check_name, datasets, is_decoded, load
from sparseflow.data.prepare import Prepared, prepare
from sparseflow.data.stratify import stratified
from sparseflow.data.streamed import MappedImages, StreamedSplit

__all__ = [
    "Crop",
    "Dataset",
    "MappedImages",
    "Prepared",
    "Split",
    "StreamedSplit",
    "Watch",
    "check_name",
    "crop_flip",
    "crops",
    "datasets",
    "is_decoded",
    "load",
    "prepare",
    "stratified",
]

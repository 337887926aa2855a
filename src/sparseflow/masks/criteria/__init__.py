"""Criteria: a score for every weight; which weights stay. Each is one short function with a catalog entry."""

from sparseflow.masks.criteria.grasp import grasp
from sparseflow.masks.criteria.plain import magnitude, random
from sparseflow.masks.criteria.snapshot import Snapshot, criteria
from sparseflow.masks.criteria.snip import snip
from sparseflow.masks.criteria.synflow import synflow

__all__ = ["Snapshot", "criteria", "grasp", "magnitude", "random", "snip", "synflow"]

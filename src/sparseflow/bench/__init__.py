"""Benchmarks: ratios against named rivals in one run, as tidy rows."""

from sparseflow.bench.layer import bench_layer
from sparseflow.bench.overhead import OverheadCase, bench_overhead
from sparseflow.bench.profile import Share, profile_step
from sparseflow.bench.step import bench_step
from sparseflow.bench.sweep import bench_sweep
from sparseflow.bench.timing import Row, interleaved, median_and_spread

__all__ = [
    "OverheadCase",
    "Row",
    "Share",
    "bench_layer",
    "bench_overhead",
    "bench_step",
    "bench_sweep",
    "interleaved",
    "median_and_spread",
    "profile_step",
]

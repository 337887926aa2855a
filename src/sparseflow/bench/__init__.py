"""Benchmarks: ratios against named rivals in one run, as tidy rows."""

from sparseflow.bench.step import bench_step
from sparseflow.bench.timing import Row, interleaved, median_and_spread

__all__ = ["Row", "bench_step", "interleaved", "median_and_spread"]

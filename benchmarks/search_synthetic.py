"""Bayesian and random search on an objective whose optimum is known: how far from it the best of 50 samples is.

    python benchmarks/search_synthetic.py [--seeds 12] [--samples 50] [--dimensions 4 16]

The objective is -sum_i w_i (d_i - d*_i)^2 with d* and w (1 on average) drawn for each seed. Searches of one seed
share the objective and the 10 vectors that Bayesian search starts from. Printed as CSV: for each number of layers and
each kappa the median regret of both, in how many seeds Bayesian search came closer, and the two-sided Wilcoxon p.
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np

from sparseflow.search import Space, suggest
from sparseflow.stats import wilcoxon

KAPPAS = (2.576, 10.0)


def regret(sampler: str, dimensions: int, seed: int, samples: int, **options: float) -> float:
    """Optimum minus the best score found."""
    numbers = np.random.default_rng(seed)
    best, weights = numbers.uniform(0.05, 0.95, dimensions), numbers.dirichlet(np.ones(dimensions)) * dimensions
    space = Space({f"layer {k}": 10_000 for k in range(dimensions)})
    told: list[tuple[tuple[float, ...], float]] = []
    for number in range(samples):
        vector = suggest(sampler, space, number, seed, told, **options).vector
        told.append((vector, -float(weights @ (np.array(vector) - best) ** 2)))
    return -max(score for _, score in told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--samples", type=int, default=50)
    parser.add_argument("--dimensions", type=int, nargs="+", default=[4, 16])
    arguments = parser.parse_args()
    print("dimensions,kappa,seeds,samples,median_regret_bayes,median_regret_random,bayes_closer,p", flush=True)
    for dimensions in arguments.dimensions:
        seeds = range(arguments.seeds)
        chance = [regret("random", dimensions, seed, arguments.samples) for seed in seeds]
        for kappa in KAPPAS:
            found = [regret("bayes", dimensions, seed, arguments.samples, kappa=kappa) for seed in seeds]
            closer = sum(f < c for f, c in zip(found, chance, strict=True))
            p = wilcoxon([c - f for f, c in zip(found, chance, strict=True)], alternative="two-sided").p_value
            print(
                f"{dimensions},{kappa:g},{arguments.seeds},{arguments.samples},{statistics.median(found):.4f},"
                f"{statistics.median(chance):.4f},{closer},{p:.2g}",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""Shared fixtures: one thread, small data, small specifications."""

from __future__ import annotations

import gc
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from commands import said
from finished_runs import make_single, make_tickets
from servers import Server
from sparseflow.study import DataCache, RunSpec, Surroundings, validate


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def small_npz(tmp_path_factory) -> Path:
    """Four classes of noisy 6 x 6 colour images: 160 to train on, 80 to test on."""
    draw = np.random.default_rng(0)
    centres = draw.integers(40, 215, size=(4, 3, 6, 6))

    def split(n: int):
        y = np.arange(n) % 4
        x = np.clip(centres[y] + draw.normal(0, 25, size=(n, 3, 6, 6)), 0, 255).astype(np.uint8)
        return x, y

    path = tmp_path_factory.mktemp("data") / "small.npz"
    (x, y), (x_test, y_test) = split(160), split(80)
    np.savez(path, x=x, y=y, x_test=x_test, y_test=y_test)
    return path


@pytest.fixture
def cache() -> DataCache:
    return DataCache(Surroundings())


@pytest.fixture
def small(small_npz):
    """Makes a small run specification; sections given are laid over it."""

    def make(**sections) -> RunSpec:
        content = {
            "data": {"name": str(small_npz)},
            "model": {"depth": 3, "width": 24},
            "mask": {"twin_width": 12},
            "optimizer": {"lr": 0.05},
            "train": {"epochs": 2, "batch_size": 32},
            "measure": {"points": 3},
        }
        for name, fields in sections.items():
            content[name] = {**content.get(name, {}), **fields} if isinstance(fields, dict) else fields
        return validate(RunSpec, content)

    return make


@pytest.fixture(scope="session")
def finished(small_npz, tmp_path_factory) -> Path:
    """A folder of two finished studies, in folders `tickets` (of arms) and `single` (a training); not to be changed."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("finished")
    make_tickets(folder / "tickets", small_npz)
    make_single(folder / "single", small_npz)
    return folder


@pytest.fixture
def analyse():
    """Runs `sparseflow analyse ...`: standard output, or the error of a command that ends with code 2."""
    return partial(said, "analyse")


@pytest.fixture(scope="session")
def server():
    """A PostgreSQL server that runs; who stops it starts it again."""
    server = Server()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def database(server) -> str:
    """The URL of an empty database."""
    return server.database()


def pytest_collection_finish():
    """What is there now is there to the end: tests that collect garbage need not look through it each time."""
    gc.collect()
    gc.freeze()

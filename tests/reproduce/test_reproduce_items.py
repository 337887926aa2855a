"""The tables and figures of the papers: all of them, with numbers that the papers print."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path

import pytest

from sparseflow.core import UnknownName
from sparseflow.reproduce.experiment import experiments
from sparseflow.reproduce.items import FOLDER, item_named, items
from sparseflow.reproduce.makers import makers
from sparseflow.reproduce.printed import PaperTable, Printed
from sparseflow.reproduce.readers import readers

ROOT = Path(__file__).parents[2]
PAPERS = Path(os.environ.get("SPARSEFLOW_PAPERS", ROOT.parent / "shared" / "papers"))
TABLES = [name for name, item in items().items() if item.printed is not None]


def test_every_table_and_figure_has_an_experiment_and_nothing_else_has() -> None:
    assert len(items()) == 152
    assert set(experiments()) == set(items())


def test_the_list_is_the_papers_list() -> None:
    """Where the papers' folder is at hand, the project's own list is compared with it."""
    theirs = PAPERS.parent / "paper_items.tsv"
    if not theirs.is_file():
        pytest.skip("the papers are not here")
    assert (FOLDER / "items.tsv").read_text(encoding="utf-8") == theirs.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", list(items()))
def test_experiments_say_how_they_are_read(name: str) -> None:
    item, experiment = items()[name], experiments()[name]
    assert experiment.parts or experiment.makes or experiment.lacks
    if experiment.makes is not None:
        assert experiment.makes in makers.names
    if item.printed is not None:
        assert experiment.reads in readers.names
        assert {len(column) for column in item.printed.columns} == {len(experiment.columns)}
    elif experiment.parts:
        assert experiment.shows or experiment.analyses or experiment.lacks


@pytest.mark.parametrize("name", TABLES)
def test_printed_numbers_are_in_the_papers_text(name: str) -> None:
    item = items()[name]
    texts = list(PAPERS.glob(f"{item.paper}_*.txt"))
    if not texts:
        pytest.skip("the papers are not here")
    text = _bare(texts[0].read_text(encoding="utf-8"))
    printed = item.printed
    assert printed is not None
    cells = printed.numbers
    for cell in random.Random(name).sample(cells, min(12, len(cells))):
        assert all(_bare(part) in text for part in cell.text.split("±")), cell.text


def _bare(text: str) -> str:
    return re.sub(r"[\s,$\\]|\{|\}", "", text)


@pytest.mark.parametrize(
    ("text", "value", "spread", "precision"),
    [
        ("0.006", 0.006, None, 0.0005),
        ("52.30 ± 0.15", 52.3, 0.15, 0.005),
        ("405749.405 ± 1051430.43", 405749.405, 1051430.43, 0.0005),
        ("−0.77", -0.77, None, 0.005),
        ("1,234", 1234.0, None, 0.5),
        ("", None, None, None),
        ("[0.456, 0.785]", None, None, None),
    ],
)
def test_cells_are_read_as_numbers(
    text: str, value: float | None, spread: float | None, precision: float | None
) -> None:
    cell = Printed.read(text)
    assert cell.text == text
    assert cell.is_number == (value is not None)
    if value is not None:
        assert cell.value == value
        assert (cell.spread == spread) if spread is not None else cell.spread != cell.spread
        assert cell.precision == pytest.approx(precision)


def test_a_row_of_another_length_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("Optimizer:,NR\nSGD,0.1\nAdam,0.1,0.2\n")
    with pytest.raises(ValueError, match="line 3: 3 fields under 2 headings"):
        PaperTable.read(path)


def test_places_name_rows_and_columns(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("Dataset:,Measure:,Sparse | Loss,Dense | Loss\nA,gf_1,1,2\nA,gf_2,3,\n")
    table = PaperTable.read(path)
    assert table.places(["Density", "Outcome"])[1][0] == {
        "Dataset": "A", "Measure": "gf_2", "Density": "Sparse", "Outcome": "Loss",
    }  # fmt: skip
    assert [cell.value for cell in table.numbers] == [1, 2, 3]


def test_an_unknown_item_says_which_there_are() -> None:
    with pytest.raises(UnknownName, match=r"001\.table3\.3a.*reproduce --list"):
        item_named("001.table3.3")

"""`sparseflow reproduce` from the command line, on the embedded digits."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from commands import said
from sparseflow.reproduce.ledger import Record, records
from sparseflow.reproduce.scoreboard import scoreboard

ROOT = Path(__file__).parents[2]
SMALL = ("--data", "digits", "--scale", "10", "--jobs", "1")
TABLE = "001.tableA.2c"
"""The smallest table: two optimisers, four activations."""
KEPT = f"{TABLE}-digits"


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    out, kept = tmp_path_factory.mktemp("out"), tmp_path_factory.mktemp("results")
    return out, kept, said("reproduce", TABLE, *SMALL, "--out", out, "--record", kept)


@pytest.mark.slow
def test_a_table_is_reproduced_and_recorded(reproduced: tuple[Path, Path, str]) -> None:
    out, kept, printed = reproduced
    assert "Trained on digits in place of the paper's data." in printed
    assert f"report: {out / TABLE / 'report.html'}" in printed
    page = (out / TABLE / "report.html").read_text(encoding="utf-8")
    for words in ("The paper&#39;s table, measured", "What the paper says of it", "Provenance", "(0.004)", "SReLU"):
        assert words in page
    found = records(kept)[TABLE][0]
    assert found.facts["runs"] == found.facts["ended"] == 2 * 4 * 2 * 2
    assert found.facts["data"] == "digits"
    assert len((kept / KEPT / "cells.csv").read_text().splitlines()) == 1 + 8


@pytest.mark.slow
def test_the_page_has_the_papers_rows_and_columns_in_the_papers_order(reproduced: tuple[Path, Path, str]) -> None:
    page = (reproduced[0] / TABLE / "report.html").read_text(encoding="utf-8")
    table = page[page.index("The paper&#39;s table, measured") :].partition("</table>")[0]
    places = [table.index(f">{name}<") for name in ("ReLU", "SReLU", "Swish", "PReLU", "Adam", "Mom (0.9)")]
    assert places == sorted(places)
    caption = page[page.index("Rows and columns as in the paper") :].partition("</figcaption>")[0]
    assert "p-values are exact" in caption
    assert "standard deviation" not in caption  # a p-value has none


@pytest.mark.slow
def test_an_item_of_the_same_cells_trains_nothing_again(reproduced: tuple[Path, Path, str]) -> None:
    out, _, _ = reproduced
    printed = said("reproduce", "001.figA.13", *SMALL, "--out", out)
    assert printed.count(", 0 of them executed now") == 2
    page = (out / "001.figA.13" / "report.html").read_text(encoding="utf-8")
    figures = page[page.index("The paper&#39;s figure, measured") :]
    assert figures.count("Test accuracy against dense width") >= 2


@pytest.mark.slow
def test_recording_again_writes_the_same_files(reproduced: tuple[Path, Path, str], tmp_path: Path) -> None:
    out, kept, _ = reproduced
    said("reproduce", TABLE, *SMALL, "--out", out, "--record", tmp_path)
    files = sorted(path.name for path in (kept / KEPT).iterdir())
    assert sorted(path.name for path in (tmp_path / KEPT).iterdir()) == files
    for name in files:
        assert (tmp_path / KEPT / name).read_bytes() == (kept / KEPT / name).read_bytes()


@pytest.mark.slow
def test_the_scoreboard_is_made_of_the_records(reproduced: tuple[Path, Path, str], tmp_path: Path) -> None:
    _, kept, _ = reproduced
    said("reproduce", "--scoreboard", tmp_path / "board.md", "--record", kept)
    board = (tmp_path / "board.md").read_text(encoding="utf-8")
    assert board == scoreboard(records(kept))
    assert "1 of 152 items have been run." in board
    assert board.count("| not run |") == 151
    facts = yaml.safe_load((kept / KEPT / "record.yaml").read_text(encoding="utf-8"))
    assert facts["summary"] in board


def test_the_projects_scoreboard_has_no_number_that_its_records_do_not_give() -> None:
    if not (ROOT / "results").is_dir():
        pytest.skip("no records here")
    assert (ROOT / "docs" / "reproduction.md").read_text(encoding="utf-8") == scoreboard(records(ROOT / "results"))


def test_the_list_has_every_item() -> None:
    printed = said("reproduce", "--list")
    assert all(name in printed for name in ("000.table1", "001.table3.3a", "003.fig10", "004.fig11b"))
    assert "capacity-matched pairs" in printed


@pytest.mark.slow
def test_a_dry_run_says_how_long_and_trains_nothing(tmp_path: Path) -> None:
    printed = said("reproduce", TABLE, *SMALL, "--out", tmp_path / "x", "--dry-run")
    assert "32 runs; estimated" in printed
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_minutes_choose_a_scale(tmp_path: Path) -> None:
    options = ("--data", "digits", "--jobs", "1", "--dry-run")
    assert "scale 10: estimated" in said("reproduce", TABLE, *options, "--scale", "minutes=0.001")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "reproduce takes one of"),
        (("001.table3.3a", "--list"), "reproduce takes one of"),
        (("001.table9",), "unknown table or figure '001.table9'"),
        ((TABLE, "--scale", "tiny"), "--scale is full, medium, small"),
        ((TABLE, "--data", "nowhere"), "unknown data set"),
        (("--scoreboard", "x.md", "--record", "nowhere"), "holds no records"),
    ],
)
def test_mistakes_are_told_in_one_line(
    arguments: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in said("reproduce", *arguments, code=2)


def test_absent_data_are_said_with_what_would_work(tmp_path: Path) -> None:
    printed = said("reproduce", TABLE, "--data-root", tmp_path, code=2)
    assert "cifar-10" in printed
    assert "--data digits needs no files" in printed


def test_an_item_on_the_papers_data_and_on_others_has_two_entries() -> None:
    facts = {"item": TABLE, "scale": "small", "rules": ["Rule."], "figures": ["x"], "runs": 0, "ended": 0}
    one = Record(TABLE, {**facts, "summary": "On the paper's."}, [])
    other = Record(KEPT, {**facts, "data": "digits", "summary": "On others."}, [])
    board = scoreboard({TABLE: [one, other]})
    assert "1 of 152 items have been run." in board
    assert board.index("On the paper's.") < board.index(f"### {TABLE} on digits") < board.index("On others.")
    assert f"](../results/{KEPT}/x.svg)" in board
    assert f"[{TABLE} on digits](#001tablea2c-on-digits)" in board
    assert board.count("| not run |") == 151

"""Bad input at the command line: one clear message that names the thing and what would have worked, status 2."""

from __future__ import annotations

import gzip
import os
import pickle
import sqlite3
import struct
import sys

import numpy as np
import pytest

from sparseflow.cli import main


@pytest.fixture
def say(monkeypatch, capsys):
    """Runs a command line; gives its exit status and what it printed."""

    def run(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["sparseflow", *map(str, words)])
        monkeypatch.delenv("SPARSEFLOW_DATA", raising=False)
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return end.value.code or 0, captured.out + captured.err

    return run


def refused(answer: tuple[int, str], *parts: str) -> None:
    status, text = answer
    assert status == 2, text
    assert "Traceback" not in text
    for part in parts:
        assert part in text, text


def test_unknown_optimizer(say):
    refused(
        say("train", "digits", "--set", "optimizer.name=adm"),
        "optimizer.name: unknown optimizer 'adm'", 
        "adagrad, adam, adamw, momentum, rmsprop, sgd", "did you mean 'adam'?",
    )  # fmt: skip


@pytest.mark.parametrize("density", ["0", "1.5", ".nan"])
def test_density_out_of_range(say, density):
    refused(say("train", "digits", "--set", f"mask.density={density}"), "mask.density: density must be in (0, 1], got")


def test_width_zero(say):
    refused(say("train", "digits", "--set", "model.width=0"), "model.width", "greater than or equal to 1, got 0")


def test_all_misspelt_keys_at_once(say, tmp_path):
    (tmp_path / "study.yaml").write_text(
        "data: {nam: digits}\ntrain: {epoch: 3, epochs: no}\ncompare: {varients: [NR]}\nmodl: {}\n"
    )
    refused(
        say("compare", tmp_path / "study.yaml"),
        "data.nam: no such field (known: augment, crop, image_size, name,", "train.epoch: no such field",
        "did you mean 'epochs'?",
        "train.epochs: Input should be a valid integer, got False", "compare.varients", "did you mean 'variants'?",
        "modl: no such field", "did you mean 'model'?",
    )  # fmt: skip


def test_yaml_that_is_none(say, tmp_path):
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    refused(say("compare", tmp_path / "list.yaml"), "expected a mapping of sections, got list")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    refused(say("compare", tmp_path / "broken.yaml"), "not valid YAML")
    refused(say("compare", tmp_path / "absent.yaml"), "no file", "absent.yaml")


def test_assignment_without_value(say):
    refused(say("train", "digits", "--set", "seed"), "--set 'seed': write it as section.field=value")


def test_unknown_preset_and_list(say):
    refused(say("compare", "digit"), "unknown preset 'digit'", "did you mean 'digits'?")
    refused(say("list", "optimisers"), "optimizers")


def test_an_option_of_another_optimizer(say):
    refused(
        say("train", "digits", "--set", "optimizer.name=sgd", "--set", "optimizer.momentum=0.5"),
        "optimizer 'sgd' has no option 'momentum'",
    )


def test_options_of_folders_and_crops_where_they_would_do_nothing(say):
    refused(say("train", "digits", "--set", "data.image_size=16"), "image_size is for folders of images", "'digits'")
    refused(say("train", "digits", "--set", "data.crop=resized"), "data.crop 'resized' needs data.augment = true")
    refused(say("train", "digits", "--set", "data.crop=resize"), "unknown crop", "did you mean 'resized'")
    refused(say("train", "photos"), "unknown data set 'photos'", "with a / (as in ./photos) for a folder of images")
    refused(say("train", "./no-such-folder"), "no-such-folder is not a folder of images")


def test_mistakes_in_arms_all_at_once(say, tmp_path):
    (tmp_path / "arms.yaml").write_text(
        "kind: arms\nbase: {train: {epoch: 3}}\narms:\n  a: {gird: {}}\n  b: {mask: {density: 2}}\n"
    )
    refused(
        say("compare", tmp_path / "arms.yaml"),
        "base.train.epoch: no such field", "arms.a.gird: no such field", "did you mean 'grid'?",
        "arms.b.mask.density: density must be in (0, 1], got 2",
    )  # fmt: skip
    refused(say("compare", "arms-digits", "--set", "versus=densee"), "unknown arm, entry or level 'densee'", "'dense'?")
    refused(
        say("compare", "arms-digits", "--set", "base.data.val_fraction=0"),
        "arms.adam.grid: a choice needs a validation split: set data.val_fraction",
    )
    refused(
        say("compare", "arms-digits", "--set", "kind=arm"), "unknown kind of study 'arm' (known: arms, pairs, search)"
    )


def test_a_twin_wider_than_the_model(say, tmp_path):
    refused(
        say("compare", "digits", "--set", "compare.dense_widths=[100]"), "100 is not between 1 and the maximum width 68"
    )
    refused(
        say("train", "digits", "--set", "mask.twin_width=100", "--out", tmp_path / "o"),
        "twin 100x64 has more weights than the sparse layer 68x64",
    )


def test_two_entries_that_are_one_width(say):
    refused(
        say("compare", "digits", "--set", "compare.dense_widths=[0.3, 20]"), "two entries give the same width (20, 20)"
    )


def test_statistics_that_no_report_could_show(say):
    refused(say("compare", "digits", "--set", "statistics.alpha=0.9"), "statistics.alpha", "less than 0.5")
    refused(say("compare", "digits", "--seeds", "101"), "5 widths x 101 seeds; at most 500 pairs per cell")


def test_what_variants_switch_is_not_set_beside_them(say):
    refused(
        say("compare", "digits", "--set", "model.norm=batch", "--set", "optimizer.weight_decay=0.1"),
        "model.norm is a variant's: leave it out and name BN in compare.variants",
        "optimizer.weight_decay is a variant's",
    )
    refused(say("compare", "digits", "--set", "compare.activations=[relu, relu]"), "names an entry twice")
    refused(say("compare", "digits", "--set", "compare.variants=[DA_BN, BN_DA]"), "are the same runs")


@pytest.mark.parametrize(
    "value", ["train.epochs=true", "train.epochs=2.5", "seed=-1", "optimizer.lr=.inf", "compare.seeds=yes"]
)
def test_numbers_are_numbers(say, value):
    refused(say("compare", "digits", "--set", value), value.partition("=")[0])


def test_lists_are_lists(say):
    refused(say("compare", "digits", "--set", "compare.variants=NR"), "compare.variants: write a list, such as [a, b]")
    refused(say("train", "digits", "--set", "model=mlp"), "model: write a mapping of fields")


def test_yaml_that_is_not_utf8(say, tmp_path):
    (tmp_path / "s.yaml").write_bytes("title: Größe".encode("latin-1"))
    refused(say("compare", tmp_path / "s.yaml"), "s.yaml: not UTF-8 text")


def test_a_variant_that_contradicts_itself(say):
    refused(say("compare", "digits", "--set", "compare.variants=[BN_LN]"), "sets model.norm twice")
    refused(say("compare", "digits", "--set", "compare.variants=[NR_BN]"), "NR is no regularisation and stands alone")
    refused(say("compare", "digits", "--set", "compare.variants=[XX]"), "unknown variant 'XX' (known: BN, DA,")


def test_no_data_folder(say, tmp_path):
    refused(say("compare", "fashion-mnist"), "--data-root", "SPARSEFLOW_DATA")
    refused(say("compare", "fashion-mnist", "--data-root", tmp_path / "no"), str(tmp_path / "no"))


def test_an_idx_file_cut_short(say, tmp_path):
    folder = tmp_path / "mnist"
    folder.mkdir()
    for split in ("train", "t10k"):
        images = struct.pack(">IIII", 2051, 20, 28, 28) + bytes(20 * 28 * 28 - 5)
        (folder / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, 20) + bytes(20))
    refused(say("train", "mnist", "--data-root", tmp_path), "train-images-idx3-ubyte.gz", "15,680")


def test_a_pickle_that_imports_os(say, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'harm'}",)

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("data_batch_1", "test_batch", "batches.meta"):
        (folder / name).write_bytes(pickle.dumps({b"data": Evil()}))
    refused(say("train", "cifar-10", "--data-root", tmp_path), "data_batch_1", "system")
    assert not (tmp_path / "harm").exists()


def test_an_npz_with_nans(say, tmp_path):
    x = np.zeros((40, 5), np.float32)
    x[3, 2] = np.nan
    np.savez(tmp_path / "bad.npz", x=x, y=np.arange(40) % 2)
    refused(say("train", tmp_path / "bad.npz"), "bad.npz", "x[3, 2] is nan")


def test_a_store_of_a_newer_version(say, tmp_path):
    (tmp_path / "o").mkdir()
    with sqlite3.connect(tmp_path / "o" / "results.db") as db:
        db.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT)")
        db.execute("INSERT INTO meta VALUES ('schema', '7')")
    db.close()
    for words in (("compare", "digits", "--out", tmp_path / "o"), ("report", tmp_path / "o")):
        refused(say(*words), "schema 7", "this version knows up to 1")


def test_an_output_folder_that_cannot_be_written(say, tmp_path):
    (tmp_path / "file").write_text("in the way")
    refused(say("compare", "digits", "--out", tmp_path / "file" / "sub"), "cannot write to the output folder")
    refused(say("compare", "digits", "--out", "/proc/nothing"), "cannot write to the output folder /proc/nothing")


def test_a_folder_without_results(say, tmp_path):
    refused(say("report", tmp_path), "no results.db here")


def test_a_device_that_is_not_there(say):
    refused(say("train", "digits", "--device", "gpu"), "device must be cpu, cuda or cuda:N, got 'gpu'")

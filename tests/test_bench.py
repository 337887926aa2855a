"""The benchmarks' rows, options and words; no test here looks at how long anything takes."""

from __future__ import annotations

import contextlib
import importlib
import json
import mmap
import sys
from dataclasses import replace
from math import isnan

import pytest
import torch

from sparseflow.bench import Row, bench_layer, bench_step, interleaved, median_and_spread, profile_step
from sparseflow.bench import rivals as rivals_module
from sparseflow.bench.cases import LayerCase, laid_out, read_conv, read_linear
from sparseflow.bench.figure import NAMES, draw_scaling
from sparseflow.bench.layer import CONVS, layer_cases
from sparseflow.bench.memory import peak_mib
from sparseflow.bench.networks import StepCase, make_step, resnet_masks, twin_width
from sparseflow.bench.overhead import ALONE, LOOPS, OverheadCase, bench_overhead, make_overhead_step
from sparseflow.bench.overhead import NAMES as OVERHEAD_NAMES
from sparseflow.bench.profile import operator_kind
from sparseflow.bench.rivals import Missing, implementations, timed_call
from sparseflow.bench.step import step_cases
from sparseflow.bench.timing import fastest, thread_limit
from sparseflow.cli import main
from sparseflow.core import BadValue, SparseflowError, UnknownName, active_counts
from sparseflow.models import ResNet, sketch
from sparseflow.sparse import kernels

COLUMNS = {"case", "implementation", "median_ms", "spread_ms", "peak_mib"}
TINY = LayerCase(12, 10, 0, 4, 0.25)


@pytest.fixture
def bench(monkeypatch, capsys):
    def call(*words) -> tuple[str, str]:
        """(standard output, standard error)"""
        monkeypatch.setattr(sys, "argv", ["sparseflow", "bench", *map(str, words)])
        with contextlib.suppress(SystemExit):
            main()
        said = capsys.readouterr()
        return said.out, said.err

    return call


# Timing --------------------------------------------------------------------------------------------------------------


def test_calls_take_turns():
    order: list[str] = []
    times = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3, warm_up=2)
    assert order == ["a", "a", "b", "b", *"ababab"]
    assert {name: len(found) for name, found in times.items()} == {"a": 3, "b": 3}


def test_short_calls_are_repeated_within_a_turn():
    calls = []
    interleaved({"a": lambda: calls.append(0)}, rounds=2, warm_up=2, turn_ms=5.0)
    assert len(calls) > 2 + 2 * 2


def test_rounds_that_still_fetch_memory_are_not_counted():
    held: list[mmap.mmap] = []  # which are the system's pages, whatever memory the process keeps

    def call() -> None:
        if len(held) < 5:
            held.append(mmap.mmap(-1, 8 << 20))
            held[-1].write(bytes(8 << 20))
        calls.append(len(held))

    # Of the calls two warm up and two count; the fourth round fetches nothing any more.
    for settling, rounds_before, counted_from in ((9, 4, 5), (1, 1, 4), (0, 0, 3)):
        held.clear()
        calls: list[int] = []
        interleaved({"a": call}, rounds=2, warm_up=2, settling=settling)
        assert len(calls) == 2 + rounds_before + 2
        assert calls[-2] == counted_from


def test_median_and_spread():
    assert median_and_spread([3.0, 1.0, 2.0, 5.0, 4.0]) == (3.0, 1.0)
    median, spread = median_and_spread([7.0])
    assert median == 7.0
    assert isnan(spread)


def test_the_fastest_form_stands_for_its_implementation():
    times = {"x (a)": [3.0, 3.0], "x (b)": [2.0, 2.0], "y": [9.0, 9.0]}
    assert fastest(times, {"x (a)": "x", "x (b)": "x", "y": "y"}) == ["x (b)", "y"]


def test_threads_are_limited_and_given_back():
    torch.set_num_threads(2)
    with thread_limit(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with pytest.raises(BadValue, match="threads"), thread_limit(0):
        pass


def hold(size: int):
    held = torch.ones(size)
    return lambda: held


def passing(size: int):
    torch.ones(size).sum()
    return lambda: None


def broken(size: int):
    return lambda: 1 / size


def test_peak_memory_is_what_a_process_holds():
    small, large = (peak_mib(hold, (n,), (1,)) for n in (1, 8_000_000))
    if isnan(small):
        pytest.skip("this system does not tell")
    assert 25 < large - small < 40  # 30.5 MiB
    # What building takes in passing counts only where asked for.
    assert peak_mib(passing, (8_000_000,), (1,)) > 25
    assert peak_mib(passing, (8_000_000,), (1,), building=False) < 25


def test_an_error_while_memory_is_measured_is_told():
    with pytest.raises(SparseflowError, match="ZeroDivisionError"):
        peak_mib(broken, (0,), (1,))


# Layers --------------------------------------------------------------------------------------------------------------


def test_layer_rows_are_tidy_and_every_implementation_has_one():
    notes: list[str] = []
    rows = bench_layer([TINY], rounds=2, memory=False, note=notes.append)
    images = bench_layer([replace(TINY, side=4)], rounds=2, memory=False)
    assert all(set(row.as_dict()) == COLUMNS for row in [*rows, *images])
    linear = [row.implementation.partition(" (")[0] for row in rows]
    assert all(row.case == "linear 12->10, batch 4, density 0.25, 1 thread" for row in rows)
    missing = {note.partition(" is left out")[0] for note in notes}
    expected = {str(e.facts["label"]) for e in implementations if "linear" in e.make()} - missing
    assert len(linear) == len(set(linear))
    assert set(linear) == expected
    conv = {row.implementation.partition(" (")[0] for row in images}
    assert all(row.case.startswith("conv 3x3 12->10 at 4x4, batch 4") for row in images)
    assert {"dense", "dense twin", "masked", "torch prune"} <= conv
    assert all(isnan(row.peak_mib) for row in rows)


def test_layer_memory_is_measured_alone():
    (small,) = bench_layer([TINY], ["twin"], rounds=2)
    (large,) = bench_layer([LayerCase(1024, 2048, 0, 4, 1.0)], ["masked"], rounds=2)
    if not isnan(small.peak_mib):
        # The weight and its gradient are 8 MiB each, the mask 2.
        assert small.peak_mib + 14 < large.peak_mib < small.peak_mib + 40


def test_batch_major_output_is_converted_within_the_timed_call():
    flowing, converted = (timed_call(name, "", TINY)() for name in ("compact", "compact-batch-major"))
    assert converted.is_contiguous()
    assert flowing.t().is_contiguous()
    assert torch.equal(flowing, converted)


def test_every_call_starts_from_empty_gradients(monkeypatch):
    seen = []
    prepared = rivals_module.prepare
    monkeypatch.setattr(rivals_module, "prepare", lambda *words: seen.append(prepared(*words)) or seen[-1])
    call = timed_call("masked", "", TINY)
    ((module, x, _, _),) = seen
    call()
    first = x.grad.clone(), module.weight.grad.clone()
    call()
    assert torch.equal(x.grad, first[0])
    assert torch.equal(module.weight.grad, first[1])


def test_a_missing_rival_gives_one_row_less_and_one_sentence(monkeypatch):
    known = importlib.import_module

    def without(name: str, *rest):
        if name.startswith("sparse") and not name.startswith("sparseflow"):
            raise ModuleNotFoundError(name)
        return known(name, *rest)

    monkeypatch.setattr(rivals_module.importlib, "import_module", without)
    notes: list[str] = []
    cases = [TINY, replace(TINY, density=0.5)]
    rows = bench_layer(cases, ["csr", "sparselab", "sparseprop"], rounds=2, memory=False, note=notes.append)
    assert [row.implementation for row in rows] == ["torch CSR"] * 2
    assert len(notes) == 2
    assert "sparselab is left out: not installed" in notes[0]
    assert "--no-build-isolation sparseprop==0.1.14" in notes[1]
    with pytest.raises(BadValue, match=r"try .*masked"):
        bench_layer(cases, ["sparselab"], rounds=2, memory=False)


def test_a_rival_that_does_not_load_is_named(monkeypatch):
    def broken_import(name: str, *rest):
        raise OSError("wrong architecture")

    monkeypatch.setattr(rivals_module.importlib, "import_module", broken_import)
    with pytest.raises(Missing, match="sparselab is left out: does not load"):
        timed_call("sparselab", "", TINY)


def test_layer_refuses_what_makes_no_benchmark():
    with pytest.raises(UnknownName, match="did you mean 'masked'"):
        bench_layer([TINY], ["maskd"])
    with pytest.raises(BadValue, match="rounds"):
        bench_layer([TINY], rounds=1)
    with pytest.raises(BadValue, match="density"):
        replace(TINY, density=0.0)
    with pytest.raises(BadValue, match="batch"):
        replace(TINY, batch=0)
    with pytest.raises(BadValue, match="no form 'x'"):
        timed_call("masked", "x", TINY)
    with pytest.raises(BadValue, match="layout"):
        laid_out(torch.ones(2, 2), "sideways")


def test_layer_cases():
    assert [(c.into, c.out, c.density) for c in layer_cases()] == [
        (3076, 3076, d) for d in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
    ]
    every = layer_cases(everything=True)
    assert {(c.into, c.out, c.side) for c in every} == {(3076, 3076, 0), (784, 788, 0), (512, 512, 0), *CONVS}
    assert {c.batch for c in every if c.into == 512} == {32, 128, 512}
    assert {c.batch for c in every if c.side} == {128}
    few = layer_cases(batches=[7], densities=[0.3], everything=True)
    assert {(c.batch, c.density) for c in few} == {(7, 0.3)}
    assert [c.density for c in layer_cases([(16, 16, 32)])] == [0.02, 0.05, 0.1]
    with pytest.raises(BadValue, match="--all"):
        layer_cases([(3, 3, 0)], everything=True)


def test_shapes_as_they_are_written():
    assert read_linear("784x788") == (784, 788, 0)
    assert read_conv("16@32") == (16, 16, 32)
    for read, text in ((read_linear, "784"), (read_linear, "0x4"), (read_linear, "16@32"), (read_conv, "16x32")):
        with pytest.raises(BadValue, match="is written"):
            read(text)


@pytest.mark.parametrize("shape", [(4, 6), (4, 3, 5, 5)])
def test_layouts_keep_values_and_shape(shape):
    x = torch.randn(shape)
    last = laid_out(x, "feature-major")
    assert torch.equal(last, x)
    assert last.stride(0) == 1
    assert last.movedim(0, -1).is_contiguous()
    assert laid_out(last, "batch-major").is_contiguous()
    if len(shape) == 4:
        assert laid_out(x, "channels-last").is_contiguous(memory_format=torch.channels_last)


def test_layer_command(bench):
    words = ("layer", "--implementations", "twin,masked", "--rounds", 2, "--no-memory")
    out, _ = bench(*words, "--linear", "8x6,6x6", "--conv", "3@4", "--batch", "2,5", "--density", "0.5,1", "--json")
    rows = json.loads(out)
    assert all(set(row) == COLUMNS for row in rows)
    assert len(rows) == 3 * 2 * 2 * 2
    assert all(row["peak_mib"] is None for row in rows)
    assert rows[0]["case"] == "linear 8->6, batch 2, density 0.5, 1 thread"
    out, _ = bench(*words, "--linear", "8x6", "--density", "0.5", "--threads", 2)
    assert "linear 8->6, batch 128, density 0.5, 2 threads" in out
    assert "x dense twin" in out
    assert "faster than masked" in out
    assert "compact" not in out
    assert f"sparse kernels {kernels()}, torch's" in out
    assert "nothing" not in bench(*words, "--linear", "8x6", "--density", "much")[0]
    assert "--density takes numbers with commas" in bench(*words, "--linear", "8x6", "--density", "much")[1]
    assert "--all has its own shapes" in bench(*words, "--linear", "8x6", "--all")[1]
    assert "unknown implementation 'none'" in bench("layer", "--linear", "8x6", "--implementations", "none")[1]


def test_layer_command_measures_memory_unless_told_not_to(bench):
    out, _ = bench("layer", "--linear", "8x6", "--density", "0.5", "--implementations", "twin", "--rounds", 2, "--json")
    (row,) = json.loads(out)
    assert row["peak_mib"] is None or row["peak_mib"] >= 0


# Steps ---------------------------------------------------------------------------------------------------------------

SMALL = StepCase(density=0.2, input_shape=(3, 4, 4), classes=5, depth=2, batch=4)
SMALL_RESNET = StepCase("resnet8", density=0.2, input_shape=(3, 8, 8), classes=5, batch=4)


@pytest.mark.parametrize("name", [*NAMES, "dense"])
def test_a_step_of_every_perceptron_learns(name):
    try:
        step = make_step(name, replace(SMALL, optimizer="adam"))
    except Missing as missing:
        pytest.skip(str(missing))
    losses = [float(step()) for _ in range(60)]
    assert losses[-1] < losses[0] - 0.01


def test_masked_compact_and_the_libraries_take_the_same_steps():
    """From the same initial values, so their losses agree; a dense net's do not."""
    losses = {}
    for name in (*NAMES, "dense"):
        with contextlib.suppress(Missing):
            step = make_step(name, SMALL)
            losses[name] = [float(step()) for _ in range(5)]
    for name in losses.keys() - {"twin", "dense"}:
        assert losses[name] == pytest.approx(losses["masked"], rel=1e-4), name
    assert losses["dense"] != pytest.approx(losses["masked"], rel=1e-4)


@pytest.mark.parametrize("name", ["masked", "compact", "dense"])
def test_a_step_of_every_resnet_learns(name):
    for form in ("", "channels-last"):
        try:
            step = make_step(name, replace(SMALL_RESNET, optimizer="adam"), form)
        except Missing as missing:
            pytest.skip(str(missing))
        losses = [float(step()) for _ in range(60)]
        assert losses[-1] < losses[0] - 0.01


def test_masks_of_a_resnet_are_all_3x3_convolutions_but_the_first():
    model = sketch("resnet", (3, 8, 8), 5, depth=14, shortcut="conv")
    masks = resnet_masks(model, 0.1)
    assert len(masks) == 12
    assert "first.weight" not in masks
    assert all(mask.shape[2:] == (3, 3) for mask in masks.values())
    counts = active_counts(ResNet((3, 8, 8), 5, depth=14), masks)
    assert counts["blocks.0.first.weight"] == round(0.1 * 16 * 16 * 9)


def test_the_twin_of_a_density_has_most_nearly_as_many_weights():
    case = StepCase(density=0.1, input_shape=(3, 32, 32), classes=100, depth=4)
    width = twin_width(case)

    def weights(width: int) -> int:
        return 3072 * width + 3 * width**2 + 100 * width

    target = 0.1 * weights(3076)
    assert abs(weights(width) - target) <= min(abs(weights(width + k) - target) for k in (-1, 1))
    assert twin_width(replace(case, density=None, dense_width=77)) == 77
    assert twin_width(replace(case, density=1.0)) == 3076
    assert twin_width(replace(case, density=1.0, depth=1)) == 3076


def test_step_rows_are_tidy():
    rows = bench_step([SMALL, SMALL_RESNET], rounds=2, memory=False)
    assert all(set(row.as_dict()) == COLUMNS for row in rows)
    assert [row.implementation for row in rows if "resnet" not in row.case] == ["masked", "compact", "dense twin"]
    images = [row.implementation for row in rows if "resnet8" in row.case]
    assert {name.partition(" (")[0] for name in images} >= {"masked", "dense"}
    assert all(row.median_ms > 0 and "sgd (fused), 1 thread" in row.case for row in rows)


def test_step_memory_is_measured():
    rows = bench_step([SMALL], ["masked"], rounds=2)
    assert isnan(rows[0].peak_mib) or rows[0].peak_mib >= 0


def test_step_cases_have_their_defaults():
    assert [(c.dense_width, c.density, c.optimizer) for c in step_cases()] == [(308, None, "sgd"), (308, None, "adam")]
    (resnet,) = step_cases("resnet32", ["momentum"])
    assert (resnet.density, resnet.classes, resnet.dense_width) == (0.05, 10, None)
    assert step_cases(density=0.3)[0].dense_width is None


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: step_cases("vgg"), "mlp or resnetN"),
        (lambda: step_cases("resnet"), "mlp or resnetN"),
        (lambda: step_cases("resnet32", dense_width=3), "give a density"),
        (lambda: step_cases(dense_width=3, density=0.1), "or a density"),
        (lambda: make_step("masked", replace(SMALL_RESNET, model="resnet9")), "6 n . 2"),
        (lambda: make_step("masked", SMALL_RESNET, "sideways"), "channels-last"),
        (lambda: bench_step([SMALL], rounds=1), "rounds"),
        (lambda: bench_step([SMALL_RESNET], ["csr"], rounds=2), "try masked"),
        (lambda: profile_step(SMALL, steps=0), "steps"),
    ],
)
def test_steps_refuse_what_cannot_be(call, match):
    with pytest.raises(BadValue, match=match):
        call()


def test_step_command(bench):
    words = ("step", "--dense-width", 64, "--rounds", 2, "--depth", 1, "--batch", 4, "--no-memory")
    rows = json.loads(bench(*words, "--optimizer", "sgd", "--json")[0])
    assert [row["implementation"] for row in rows] == ["masked", "compact", "dense twin"]
    assert all(set(row) == COLUMNS for row in rows)
    assert all(row["case"] == "step, dense width 64, depth 1, batch 4, sgd (fused), 1 thread" for row in rows)
    words = (*words, "--optimizer", "adam", "--implementation", "plain", "--implementations", "twin", "--threads", 2)
    (row,) = json.loads(bench(*words, "--json")[0])
    assert row["case"] == "step, dense width 64, depth 1, batch 4, adam (plain), 2 threads"
    words = ("step", "--rounds", 2, "--batch", 2, "--no-memory", "--model", "resnet8", "--optimizer", "sgd")
    out, _ = bench(*words, "--density", 0.5, "--implementations", "dense")
    assert "resnet8, density 0.5, batch 2" in out


def test_profile_command(bench):
    words = ("step", "--model", "resnet8", "--rounds", 2, "--batch", 2, "--optimizer", "sgd", "--profile")
    shares = json.loads(bench(*words, "--implementations", "masked", "--json")[0])
    assert all(set(share) == {"case", "implementation", "kind", "ms", "share"} for share in shares)
    assert sum(share["share"] for share in shares) == pytest.approx(1)
    kinds = {share["kind"] for share in shares}
    assert {"convolution", "batch norm", "elementwise", "optimiser", "masking", "rest"} <= kinds
    assert "batch norm" in bench(*words)[0]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::mkldnn_convolution", "convolution"),
        ("ConvolutionBackward0", "convolution"),
        ("sparseflow::mm", "sparse products"),
        ("_Both", "sparse products"),
        ("_MmBackward", "sparse products"),
        ("_Normalise", "batch norm"),
        ("_Turn", "copies"),
        ("aten::native_batch_norm_backward", "batch norm"),
        ("NativeBatchNormBackward0", "batch norm"),
        ("aten::masked_fill_", "masking"),
        ("aten::bitwise_and_", "masking"),
        ("aten::addmm", "linear"),
        ("aten::add_", "elementwise"),
        ("ReluBackward0", "elementwise"),
        ("aten::copy_", "copies"),
        ("Optimizer.step#SGD.step", "optimiser"),
        ("autograd::engine::evaluate_function: ReluBackward0", ""),
        ("aten::empty", ""),
    ],
)
def test_operators_have_their_kind(name, kind):
    assert operator_kind(name) == kind


# Overhead ------------------------------------------------------------------------------------------------------------

TINY_OVERHEAD = OverheadCase(batch=2, width=4, side=8, density=0.3)


def test_all_loops_of_the_overhead_start_alike_and_learn():
    losses = {}
    for name in LOOPS:
        step = make_overhead_step(name, replace(TINY_OVERHEAD, optimizer="adam"))
        losses[name] = [float(step()) for _ in range(8)]
        assert min(losses[name]) < losses[name][0]
    # The first two losses are before and after a first step; without masks that step moves all weights.
    assert len({found[0] for found in losses.values()}) == 1
    assert losses["Sparse"][1] != losses["without masks"][1]
    assert losses["Sparse"][1] == pytest.approx(losses["weight *= mask"][1], rel=1e-5)
    alone = make_overhead_step(ALONE, replace(TINY_OVERHEAD, optimizer="adam"))
    assert float(alone()) == float(alone()) == losses["Sparse"][0], "it takes no further step"
    with pytest.raises(BadValue, match="without masks"):
        make_overhead_step("masked", TINY_OVERHEAD)


def test_overhead_rows_are_tidy(monkeypatch):
    asked = []
    monkeypatch.setattr("sparseflow.bench.overhead.peak_mib", lambda *a, threads: asked.append(a) or 7.0)
    rows = bench_overhead([TINY_OVERHEAD], rounds=2)
    assert [(make, each[0], small[0]) for make, each, small in asked] == [
        (make_overhead_step, name, name) for name in OVERHEAD_NAMES
    ]
    assert [row.implementation for row in rows] == list(OVERHEAD_NAMES)
    assert all(set(row.as_dict()) == COLUMNS for row in rows)
    assert {row.case for row in rows} == {"overhead, resnet18, density 0.3, batch 2, momentum (fused), 1 thread"}
    assert {row.peak_mib for row in rows} == {7.0}
    assert isnan(bench_overhead([TINY_OVERHEAD], rounds=2, memory=False)[0].peak_mib)
    with pytest.raises(BadValue, match="rounds"):
        bench_overhead([TINY_OVERHEAD], rounds=1)
    for wrong in ({"batch": 0}, {"width": 0}, {"density": 1.5}):
        with pytest.raises(BadValue):
            replace(TINY_OVERHEAD, **wrong)


def test_overhead_command(bench, monkeypatch):
    def small(batch, optimizer, density):
        return OverheadCase(batch, optimizer, density, width=4, side=8)

    monkeypatch.setattr("sparseflow.cli.bench.OverheadCase", small)
    words = ("overhead", "--batch", "2,3", "--optimizer", "sgd", "--rounds", 2, "--no-memory")
    rows = json.loads(bench(*words, "--json")[0])
    assert [row["implementation"] for row in rows] == [*OVERHEAD_NAMES] * 2
    assert [row["case"] for row in rows[::4]] == [
        f"overhead, resnet18, density 0.1, batch {n}, sgd (fused), 1 thread" for n in (2, 3)
    ]
    assert "x without masks" in bench(*words)[0]


# Figure --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_the_figure_shows_every_implementation(tmp_path, suffix):
    groups = {d: [Row("", "masked", 10.0, 0.1, 0.0), Row("", "compact", 90 * d, 0.1, 0.0)] for d in (0.01, 0.1)}
    out = tmp_path / "there" / f"scaling{suffix}"
    draw_scaling(groups, out)
    first = out.read_bytes()
    draw_scaling(groups, out)
    assert out.read_bytes() == first
    if suffix == ".svg":
        text = first.decode()
        assert all(word in text for word in ("masked", "compact", "density", "0.01"))
        assert "sparselab" not in text


def test_figure_command(bench, tmp_path):
    out = tmp_path / "scaling.svg"
    words = ("figure", "--out", out, "--density", "0.01", "--rounds", 2, "--batch", 8, "--depth", 1)
    rows = json.loads(bench(*words, "--optimizer", "sgd", "--json")[0])
    assert {row["implementation"] for row in rows} >= {"masked", "compact", "dense twin", "torch prune", "torch CSR"}
    assert all("density 0.01, depth 1, batch 8, sgd" in row["case"] for row in rows)
    assert "torch CSR" in out.read_text()
    assert "must end in .svg" in bench("figure", "--out", "scaling.gif")[1]


def test_a_figure_of_nothing_is_refused(tmp_path):
    with pytest.raises(BadValue, match="nothing"):
        draw_scaling({0.1: []}, tmp_path / "x.svg")
    (tmp_path / "file").write_text("")
    with pytest.raises(SparseflowError, match="cannot write"):
        draw_scaling({0.1: [Row("", "masked", 1.0, 0.1, 0.0)]}, tmp_path / "file" / "x.svg")

"""What a run measures along its training."""

from __future__ import annotations

from math import sqrt

from torch import nn

from sparseflow.core import Batch, Masks, Metric, Probe
from sparseflow.data import Prepared
from sparseflow.measure import AccuracyProbe, ActivationProbe, CurvatureProbe, GradientFlowProbe, gradient_flow
from sparseflow.study.build import plan_for
from sparseflow.study.spec import RunSpec
from sparseflow.train import ProbeChange


def probes_of(spec: RunSpec, data: Prepared) -> tuple[Probe, ...]:
    """What is measured at the points, all on the same fixed training examples."""
    m, loss = spec.measure, plan_for(spec).loss
    if not (m.gradient_flow or m.train_accuracy or m.activations or m.eigenvalues):
        return ()
    x, y = data.probe(m.probe_size)
    parts = zip(x.split(spec.train.batch_size), y.split(spec.train.batch_size), strict=True)
    batches = tuple((data.normalise(a), b) for a, b in parts if len(b) > 1)
    probes: list[Probe] = []
    if m.gradient_flow:
        probes.append(
            GradientFlowProbe(
                loss,
                batches,
                average=m.average,
                batch_norm=m.batch_norm,
                others=m.others,
                per_weight=m.per_weight,
            )
        )
    if m.train_accuracy:
        probes.append(AccuracyProbe(batches))
    if m.activations:
        probes.append(ActivationProbe(batches))
    if m.eigenvalues:
        probes.append(CurvatureProbe(loss, batches, m.eigenvalues, m.eigenvalues, batch_norm=m.batch_norm))
    return tuple(probes)


def probe_change_of(spec: RunSpec) -> ProbeChange | None:
    """004 Fig. 3: the gradient's norm over active weights, by the same batch before and after an update."""
    if spec.rewire is None or not spec.rewire.gradient_norms:
        return None
    loss = plan_for(spec).loss

    def measure(model: nn.Module, masks: Masks, batch: Batch) -> dict[Metric, float]:
        flow = gradient_flow(model, loss, [batch], masks)
        return {Metric("gradient_norm"): sqrt(flow.squared)}

    return measure

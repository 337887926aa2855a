"""Training: optimisers and schedules, `Sparse`, the loop that resumes."""

from sparseflow.train import checkpoint
from sparseflow.train.evaluate import evaluate
from sparseflow.train.flops import forward_flops
from sparseflow.train.loop import ProbeChange, Trainer
from sparseflow.train.losses import smoothed
from sparseflow.train.optimizers import make_optimizer, optimizers, parameter_groups, resolve_implementation
from sparseflow.train.plan import Outcome, Plan
from sparseflow.train.points import measuring_steps
from sparseflow.train.rules import Change, GradualMagnitude, LayerScene, Pair, Rewire, Rule, Scene, decays, rewirings
from sparseflow.train.schedules import Schedule, make_schedule, schedules
from sparseflow.train.sparse import Sparse
from sparseflow.train.stacked import Stack, obstacle
from sparseflow.train.state import register_initial_state

__all__ = [
    "Change",
    "GradualMagnitude",
    "LayerScene",
    "Outcome",
    "Pair",
    "Plan",
    "ProbeChange",
    "Rewire",
    "Rule",
    "Scene",
    "Schedule",
    "Sparse",
    "Stack",
    "Trainer",
    "checkpoint",
    "decays",
    "evaluate",
    "forward_flops",
    "make_optimizer",
    "make_schedule",
    "measuring_steps",
    "obstacle",
    "optimizers",
    "parameter_groups",
    "register_initial_state",
    "resolve_implementation",
    "rewirings",
    "schedules",
    "smoothed",
]

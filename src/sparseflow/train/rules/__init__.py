"""Rules that change masks along a training: gradual pruning, and rewiring at a constant number of active weights."""

from sparseflow.train.rules.gradual import GradualMagnitude
from sparseflow.train.rules.pairs import Pair, rewirings
from sparseflow.train.rules.rewire import Rewire, decays
from sparseflow.train.rules.scene import Change, LayerScene, Rule, Scene

__all__ = ["Change", "GradualMagnitude", "LayerScene", "Pair", "Rewire", "Rule", "Scene", "decays", "rewirings"]

"""Where a run happens, and which files it leaves there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from sparseflow.core import Masks
from sparseflow.study.lineage import Legacy
from sparseflow.study.spec import RunSpec
from sparseflow.train import checkpoint


@dataclass(frozen=True)
class Surroundings:
    """Where a run happens; none of it changes its numbers on one machine, so none of it is in its name."""

    data_root: str | None = None
    checkpoints: Path | None = None
    device: str = "cpu"
    threads: int = 1
    checkpoint_seconds: float = 5.0
    """An epoch's end writes a checkpoint when waiting for the next would leave more than this unsaved."""
    keep: bool = False
    """Keep the final network (a dense state_dict and its masks) beside the checkpoints."""
    legacy: Legacy = field(default_factory=dict)
    """What other runs of the study begin with (`lineage.legacy`) or it compares in the end, kept in any case."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """Files that specifications name, where they lie somewhere else here."""

    def file(self, named: str) -> Path:
        """Where a file is that a specification names."""
        return self.files.get(named, Path(named))

    def final_path(self, name: str) -> Path | None:
        """Of a run's final network, where it is kept."""
        return self._path(f"{name}.final.pt")

    def rewind_path(self, name: str, step: int) -> Path | None:
        """Of a run's weights after so many steps, which other runs go back to."""
        return self._path(f"{name}.step{step}.pt")

    def resume_path(self, name: str) -> Path | None:
        """Of the checkpoint that a run goes on from."""
        return self._path(f"{name}.resume.pt")

    def start_path(self, name: str) -> Path | None:
        """Of the weights that a run begins with, where finding them takes long."""
        return self._path(f"{name}.start.pt")

    def passing_paths(self, name: str) -> list[Path]:
        """Of what a run needs until its result is in the store."""
        paths = [self.resume_path(name), self.start_path(name)]
        return [path for path in paths if path is not None]

    def _path(self, name: str) -> Path | None:
        return self.checkpoints / name if self.checkpoints else None

    def rewind_paths(self, spec: RunSpec) -> Mapping[int, Path]:
        """Step -> file of the weights that a run leaves on its way.

        Round 0 of a lottery leaves them whether or not a later round is asked for yet: more rounds are usual.
        """
        lottery = spec.mask.lottery
        first = {lottery.rewind_step} if lottery is not None and lottery.round == 0 else set()
        steps = sorted(first | self.legacy.get(spec.name, frozenset()))
        paths = {step: self.rewind_path(spec.name, step) for step in steps}
        return {step: path for step, path in paths.items() if path is not None}

    def kept_path(self, spec: RunSpec) -> Path | None:
        """Of a run's final network, if it is to be kept: because it is asked for, or in the legacy."""
        wanted = self.keep or spec.mask.lottery is not None or spec.name in self.legacy
        return self.final_path(spec.name) if wanted else None

    def kept_paths(self, spec: RunSpec) -> list[Path]:
        """What a run leaves beside its results."""
        final = self.kept_path(spec)
        return [*([final] if final is not None else []), *self.rewind_paths(spec).values()]


def keep_network(model: nn.Module, masks: Masks, spec: RunSpec, path: Path) -> None:
    """Write a network: the run's specification, a dense state_dict and the masks, on the CPU."""
    state = {name: t.detach().cpu() for name, t in model.state_dict().items()}
    kept = {name: mask.cpu() for name, mask in masks.items()}
    checkpoint.save(path, {"spec": spec.changes(), "state_dict": state, "masks": kept})

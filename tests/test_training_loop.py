"""The code of docs/training-loop.md runs as it is printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from sparseflow.core import stream, weight_shapes
from sparseflow.masks import random_masks, uniform

PAGE = Path(__file__).parent.parent / "docs" / "training-loop.md"
LOOP, CHECKPOINT, CALLBACK = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def batches() -> list[tuple[Tensor, Tensor]]:
    draw = stream(0, "batches")
    return [(torch.randn(8, 6, generator=draw), torch.randint(3, (8,), generator=draw)) for _ in range(4)]


def net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


def test_the_loop_and_its_checkpoint(tmp_path, capsys):
    model = net()
    names = {"torch": torch, "model": model, "loader": batches(), "loss_fn": F.cross_entropy, "path": tmp_path / "x.pt"}
    exec(LOOP, names)
    assert "4 steps" in capsys.readouterr().out
    for name, mask in names["chosen"].items():
        assert not model.get_parameter(name)[~mask].any()
        assert model.get_parameter(name)[mask].any()
    exec(CHECKPOINT, names)
    assert names["sparse"].steps == 4


# Lightning's own: how it asks torch's pytree, and, on machines of many cores, how it would have data loaded.
@pytest.mark.filterwarnings("ignore:.*LeafSpec", "ignore:.*does not have many workers")
def test_the_lightning_callback(tmp_path):
    """Masks hold through fit and a checkpoint; a resumed fit is an unbroken one; then the model is an ordinary one."""
    lightning = pytest.importorskip("lightning", reason="lightning is not installed (pip install '.[lightning]')")
    names: dict = {}
    exec("from sparseflow import Sparse\n" + CALLBACK, names)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def training_step(self, batch, index):
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=0.01)

    shapes = weight_shapes(Module())
    masks = random_masks(shapes, uniform(shapes, 0.3), seed=0)
    assert set(masks) == {"net.0.weight", "net.2.weight"}

    def fit(epochs: int, masks, **how) -> tuple[nn.Module, object, object]:
        module, callback = Module(), names["KeepMasks"](masks)
        trainer = lightning.Trainer(
            max_epochs=epochs,
            callbacks=[callback],
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            gradient_clip_val=0.5,
            default_root_dir=tmp_path,
        )
        trainer.fit(module, DataLoader(TensorDataset(*map(torch.cat, zip(*batches(), strict=True))), 8), **how)
        return module, callback, trainer

    unbroken, whole, _ = fit(3, masks)
    assert whole.sparse.steps == 12
    first, _, trainer = fit(2, masks)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    others = {name: ~mask for name, mask in masks.items()}  # the checkpoint's masks win
    resumed, callback, _ = fit(3, others, ckpt_path=tmp_path / "last.ckpt")
    assert callback.sparse.steps == 12
    for name, value in unbroken.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
        assert not torch.equal(first.state_dict()[name], value)
        if name in masks:
            assert not value[~masks[name]].any()
            assert value[masks[name]].any()
    assert not any(p._post_accumulate_grad_hooks for p in resumed.parameters())

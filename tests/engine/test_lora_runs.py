"""A run that trains adapters alone: resumed with the same bits, and told in the record."""

import json
import shutil

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmseg.registry import MODELS as SEG_MODELS
from torch import nn

from vfm_ss.engine.checkpoint_io import load_from_local

LORA = dict(r=2, lora_dropout=0.3, target_modules=["qkv", "fc2"])


@MODELS.register_module(force=True)
class LoraToy(BaseModel):
    """A tiny ViT on images of one colour, with adapters or frozen blocks, and drop path."""

    def __init__(self, backbone):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = SEG_MODELS.build(backbone)
        self.decode_head = nn.Linear(24, 2)
        self.decode_head.num_classes = 2

    def forward(self, inputs, data_samples=None, mode="loss"):
        images = torch.stack(inputs)[..., None, None].expand(-1, -1, 16, 16)
        out = self.decode_head(self.backbone(images)[0].mean((2, 3)))
        return dict(loss=(out - 1).square().mean()) if mode == "loss" else list(out)


def backbone(**changes):
    return dict(
        type="TimmViT", model_name="vit_tiny_patch16_224", patch_size=8, img_size=16, depth=2,
        embed_dim=24, num_heads=2, drop_path_rate=0.2, pretrained=False, **changes,
    )  # fmt: skip


def weights(path):
    return load_from_local(str(path))["state_dict"]


@pytest.mark.parametrize(
    "changes", [dict(lora=LORA), dict(frozen_stages=1)], ids=["lora", "stages"]
)
def test_a_resumed_run_ends_with_the_same_bits(changes, toy, tmp_path):
    model = dict(type="LoraToy", backbone=backbone(**changes))
    whole = toy("whole", model=model, checkpoint=dict(interval=1, max_keep_ckpts=-1))
    begin = {name: value.clone() for name, value in whole.model.state_dict().items()}
    whole.train()
    (tmp_path / "half").mkdir()
    shutil.copy(tmp_path / "whole" / "iter_3.pth", tmp_path / "half")
    toy("half", model=model, resume=True).train()
    end, resumed = (weights(tmp_path / name / "iter_6.pth") for name in ("whole", "half"))
    assert end.keys() == resumed.keys()
    assert all(torch.equal(end[name], resumed[name]) for name in end)

    trained = {name for name, value in end.items() if not torch.equal(value, begin[name])}
    own = {name for name, p in whole.model.named_parameters() if p.requires_grad}
    assert trained == own
    kept = ("lora_",) if "lora" in changes else ("blocks.1.", "vit.norm.")
    assert all(name.startswith("decode_head.") or any(k in name for k in kept) for name in own)
    record = json.loads((tmp_path / "whole" / "record.json").read_text())
    count = sum(p.numel() for p in whole.model.parameters() if p.requires_grad)
    assert record["trainable_params"] == count < record["total_params"]
    assert any(key.startswith(f"model.backbone.{next(iter(changes))}") for key in record["config"])


def test_a_run_of_another_rank_is_not_resumed(toy, tmp_path):
    model = dict(type="LoraToy", backbone=backbone(lora=LORA))
    toy(steps=2, model=model).train()
    other = dict(type="LoraToy", backbone=backbone(lora=dict(LORA, r=4)))
    with pytest.raises(ValueError, match=r"model\.backbone\.lora\.r was 2, is 4"):
        toy(steps=2, model=other, resume=True).train()

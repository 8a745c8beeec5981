"""Trained models in small: a config file and a checkpoint of it, with random weights."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

CLASSES = ("sky", "road", "tree", "car", "person")


@pytest.fixture
def trained(tmp_path):
    """`trained(backbone, head, **model)`: the paths of a config and of a checkpoint."""

    def make(backbone: dict, head: dict | None = None, seed=0, name="small", **model):
        backbone = dict(pretrained=False, **backbone)
        head = {"type": "LinearHead", "num_classes": len(CLASSES), **(head or {})}
        cfg = Config(
            dict(
                default_scope="mmseg",
                custom_imports=dict(imports=["vfm_ss"]),
                model=dict(
                    type="VFMEncoderDecoder",
                    data_preprocessor=dict(type="PaddingSegDataPreProcessor", bgr_to_rgb=True),
                    backbone=backbone,
                    decode_head=head,
                    test_cfg=dict(mode="slide"),
                    **model,
                ),
            )
        )
        config, checkpoint = tmp_path / f"{name}.py", tmp_path / f"{name}.pth"
        cfg.dump(config)
        init_default_scope("mmseg")
        torch.manual_seed(seed)
        built = MODELS.build(cfg.model)
        with torch.no_grad():  # every weight counts, also those that begin as 0 or 1
            for parameter in built.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape))
        meta = dict(dataset_meta=dict(classes=CLASSES))
        torch.save(dict(meta=meta, state_dict=built.state_dict()), checkpoint)
        return config, checkpoint

    return make


@pytest.fixture
def tiny(trained):
    """A config and a checkpoint of a ViT of one block at 32 x 48 pixels."""
    return trained(TINY)


TINY = dict(
    type="TimmViT",
    model_name="vit_tiny_patch16_224",
    img_size=(32, 48),
    depth=1,
    embed_dim=48,
    num_heads=3,
)

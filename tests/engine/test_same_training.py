"""What makes a step fast leaves the training as it is."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.models import SegDataPreProcessor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from vfm_ss.engine.train_loop import split

STEPS, IMAGES, SIZE = 12, 8, 32


def batches():
    """Images whose red channel tells the class, with pixels and a whole image ignored."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        inputs, samples = [], []
        for i in range(IMAGES):
            label = torch.randint(0, 4, (1, 2, 2), generator=generator)
            label = label.repeat_interleave(SIZE // 2, 1).repeat_interleave(SIZE // 2, 2)
            image = torch.randint(0, 60, (3, SIZE, SIZE), generator=generator)
            image[2] += 60 * label[0]
            label[:, :3] = 255
            if i == 5:
                label[:] = 255
            inputs.append(image.clamp(max=255).to(torch.uint8))
            samples.append(SegDataSample(gt_sem_seg=PixelData(data=label)))
        yield {"inputs": inputs, "data_samples": samples}


def loss_curve(fast, micro_batch, **backbone):
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type="VFMEncoderDecoder",
            data_preprocessor=dict(type="PaddingSegDataPreProcessor", bgr_to_rgb=True),
            backbone=dict(
                type="TimmViT",
                model_name="vit_tiny_patch16_224",
                depth=2,
                img_size=SIZE,
                patch_size=8,
                pretrained=False,
                **backbone,
            ),
            decode_head=dict(
                type="LinearHead",
                num_classes=4,
                loss_decode=dict(type="PerImageCrossEntropyLoss", tiled=fast),
            ),
        )
    ).train()
    if not fast:
        statistics = {
            name: [255 * value for value in getattr(model.backbone, name)]
            for name in ("mean", "std")
        }
        model.data_preprocessor = SegDataPreProcessor(
            bgr_to_rgb=True, size=(SIZE, SIZE), **statistics
        )
    kind = "GroupedOptimWrapperConstructor" if fast else "DefaultOptimWrapperConstructor"
    cfg = dict(
        type="MixedPrecisionOptimWrapper",
        precision="fp32",
        constructor=kind,
        optimizer=dict(type="AdamW", lr=3e-3, weight_decay=0.05),
        paramwise_cfg=dict(custom_keys={"backbone": dict(lr_mult=0.1)}),
        accumulative_counts=IMAGES // micro_batch,
    )
    wrapper = build_optim_wrapper(model, cfg)
    curve = []
    for batch in batches():
        losses = [model.train_step(part, wrapper)["loss"] for part in split(batch, micro_batch)]
        curve.append(torch.stack(losses).mean().item())
    return curve


@pytest.mark.parametrize(
    "options",
    [
        dict(micro_batch=1),
        dict(micro_batch=8, with_cp=True),
        dict(micro_batch=4, compile=dict(backend="aot_eager")),
    ],
    ids=["micro-batch 1", "checkpointing", "compiled"],
)
def test_every_option_on_gives_the_loss_curve_of_every_option_off(options):
    init_default_scope("mmseg")
    plain = loss_curve(False, 1)
    assert plain[-1] < 0.7 * plain[0]
    assert loss_curve(True, **options) == pytest.approx(plain, rel=2e-3)

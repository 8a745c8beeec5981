import pytest
import torch
from mmengine.structures import PixelData
from mmseg.models import SegDataPreProcessor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

CFG = dict(
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_val=0,
    seg_pad_val=255,
    size=(12, 20),
)


def batch(size=(12, 20)):
    generator = torch.Generator().manual_seed(0)
    images, samples = [], []
    for _ in range(3):
        images.append(torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8))
        label = torch.randint(0, 9, (1, *size), generator=generator)
        samples.append(
            SegDataSample(gt_sem_seg=PixelData(data=label), metainfo={"img_path": "x", "scale": 2})
        )
    return {"inputs": images, "data_samples": samples}


@pytest.mark.parametrize("conversion", [True, False])
@pytest.mark.parametrize("size", [(12, 20), (10, 20)])
def test_training_batches_are_mmsegs_bit_by_bit(conversion, size):
    cfg = {**CFG, "bgr_to_rgb": conversion}
    ours = MODELS.build(dict(type="PaddingSegDataPreProcessor", **cfg))(batch(size), True)
    mmsegs = SegDataPreProcessor(**cfg)(batch(size), True)
    assert torch.equal(ours["inputs"], mmsegs["inputs"])
    for actual, expected in zip(ours["data_samples"], mmsegs["data_samples"], strict=True):
        assert torch.equal(actual.gt_sem_seg.data, expected.gt_sem_seg.data)
        assert actual.metainfo == expected.metainfo

"""mmseg's recipe for two classes by one output channel, from training to the score."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from vfm_ss.protocol.records import read_record

SIZE = 32
SIGMOID = dict(type="CrossEntropyLoss", use_sigmoid=True)
HEADS = {
    "ours": dict(type="LinearHead"),
    "ours with mmseg's loss": dict(type="LinearHead", loss_decode=SIGMOID),
    "mmseg's": dict(
        type="FCNHead", channels=16, num_convs=1, kernel_size=1, concat_input=False,
        dropout_ratio=0, loss_decode=SIGMOID,
    ),
}  # fmt: skip


@pytest.fixture
def data(tmp_path):
    """Bright rectangles on dark ground, wider than high, with a border that does not count."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / "data" / kind / split).mkdir(parents=True)
        for k in range(4):
            label = np.zeros((40, 56), np.uint8)
            label[8 + 2 * k : 28, 10 : 30 + 5 * k] = 1
            image = np.where(label[..., None] == 1, 200, 40) + rng.normal(0, 15, (40, 56, 3))
            label[:, :3] = 255
            cv2.imwrite(
                str(tmp_path / f"data/images/{split}/{k}.png"), image.clip(0, 255).astype(np.uint8)
            )
            cv2.imwrite(str(tmp_path / f"data/labels/{split}/{k}.png"), label)
    return tmp_path / "data"


def config(data, head, classes=("ground", "thing"), **head_changes):
    def loader(split, pipeline, sampler, batch_size):
        dataset = dict(
            type="BaseSegDataset", data_root=str(data), img_suffix=".png", pipeline=pipeline,
            data_prefix=dict(img_path=f"images/{split}", seg_map_path=f"labels/{split}"),
            metainfo=dict(classes=classes, palette=[[0, 0, 0], [255, 0, 0]][: len(classes)]),
        )  # fmt: skip
        return dict(batch_size=batch_size, num_workers=0, dataset=dataset, sampler=sampler)

    read = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")]
    crop = [*read, dict(type="RandomCrop", crop_size=(SIZE, SIZE)), dict(type="PackSegInputs")]
    whole = [*read, dict(type="PackSegInputs")]
    backbone = dict(
        type="TimmViT", model_name="vit_tiny_patch16_224", depth=1, img_size=SIZE, patch_size=8,
        pretrained=False,
    )  # fmt: skip
    head = dict(num_classes=2, out_channels=1, threshold=0.4) | head | head_changes
    head.setdefault("in_channels", 192)
    return Config(
        dict(
            default_scope="mmseg",
            custom_imports=dict(imports=["vfm_ss"]),
            work_dir=str(data.parent / "run"),
            model=dict(
                type="VFMEncoderDecoder",
                data_preprocessor=dict(bgr_to_rgb=True, pad_val=0, seg_pad_val=255),
                backbone=backbone,
                decode_head=head,
                test_cfg=dict(mode="slide"),
            ),
            train_dataloader=loader("train", crop, dict(type="PositionSampler"), 4),
            val_dataloader=loader("val", whole, dict(type="DefaultSampler", shuffle=False), 2),
            val_evaluator=dict(type="MeanIoUMetric"),
            train_cfg=dict(
                type="OptimStepTrainLoop", max_iters=30, val_interval=30, effective_batch=4,
                micro_batch=2,
            ),
            val_cfg=dict(type="ValLoop"),
            optim_wrapper=dict(
                type="MixedPrecisionOptimWrapper", optimizer=dict(type="AdamW", lr=5e-3)
            ),
            default_hooks=dict(
                logger=dict(type="LoggerHook", interval=1, log_metric_by_epoch=False),
                checkpoint=dict(type="AtomicCheckpointHook", by_epoch=False, interval=30),
                record=dict(type="RecordHook"),
            ),
            log_processor=dict(by_epoch=False),
            randomness=dict(seed=0),
        )
    )  # fmt: skip


def direct_ious(runner):
    """IoU of both classes in numpy, from the averaged logits of every image."""
    model = runner.model.eval()
    tables = np.zeros((2, 2), int)
    with torch.no_grad():
        for batch in runner.val_dataloader:
            batch = model.data_preprocessor(batch, False)
            logits = model.slide_inference(batch["inputs"], [{}] * len(batch["inputs"]))
            for logit, sample in zip(logits, batch["data_samples"], strict=True):
                probability = 1 / (1 + np.exp(-logit[0].double().numpy()))
                pred = (probability > 0.4).astype(int)
                label = sample.gt_sem_seg.data[0].numpy()
                for true, found in zip(label[label != 255], pred[label != 255], strict=True):
                    tables[true, found] += 1
    right = np.diag(tables)
    return 100 * right / (tables.sum(0) + tables.sum(1) - right)


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())
def test_one_channel_trains_and_scores_what_it_predicts(head, data, monkeypatch):
    monkeypatch.setattr("mmengine.runner.runner.collect_env", dict)
    runner = Runner.from_cfg(config(data, head))
    runner.train()
    record = read_record(data.parent / "run" / "record.json")
    assert record.remarks == []
    assert record.status == "finished"
    ious = direct_ious(runner)
    assert list(record.iou.values()) == pytest.approx(list(ious), abs=1e-9)
    assert record.miou == pytest.approx(ious.mean(), abs=1e-9)
    assert record.miou > 60, "it has learnt which pixels are bright"


def test_masks_of_0_and_255_in_mmsegs_own_data_set_are_refused(data, monkeypatch):
    monkeypatch.setattr("mmengine.runner.runner.collect_env", dict)
    for path in data.glob("labels/train/*.png"):
        cv2.imwrite(str(path), np.where(cv2.imread(str(path), 0) == 0, 0, 255))
    cfg = config(data, HEADS["ours"])
    with pytest.raises(ValueError, match=r"'ground', training needs two classes .*255 .ignored"):
        Runner.from_cfg(cfg).train()
    assert not list(data.parent.glob("run/*.pth"))


def test_one_class_is_refused_before_training(data, monkeypatch):
    monkeypatch.setattr("mmengine.runner.runner.collect_env", dict)
    changes = dict(classes=("thing",), num_classes=1, out_channels=None)
    runner = Runner.from_cfg(config(data, HEADS["ours"], **changes))
    with pytest.raises(ValueError, match=r"decode_head\.num_classes=1: .*count the background"):
        runner.train()
    assert not (data.parent / "run" / "record.json").exists()


def test_a_softmax_over_one_channel_is_refused_before_training(data, monkeypatch):
    monkeypatch.setattr("mmengine.runner.runner.collect_env", dict)
    softmax = dict(loss_decode=dict(type="CrossEntropyLoss"))
    runner = Runner.from_cfg(config(data, HEADS["ours"], **softmax))
    with pytest.raises(ValueError, match=r"out_channels=1 does not go with its loss"):
        runner.train()

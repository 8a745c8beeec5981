"""DINOv3's probe in training: its norm is over all images of a step, or it is refused."""

import shutil

import pytest
import torch
from mmseg.registry import MODELS
from torch import nn

from vfm_ss.engine import head_checks, train_loop
from vfm_ss.engine.failures import explain
from vfm_ss.engine.head_checks import check_heads
from vfm_ss.protocol.records import read_record

MAPS = dict(
    num_workers=0,
    batch_size=16,
    dataset=dict(type="ToyMaps"),
    collate_fn=dict(type="pseudo_collate"),
    sampler=dict(type="PositionSampler"),
)


def model(**head):
    vit = dict(type="TimmViT", model_name="vit_tiny_patch16_224", pretrained=False, depth=1)
    vit |= dict(embed_dim=24, num_heads=2, img_size=32, patch_size=8, frozen=True)
    head = {"type": "BatchNormLinearHead", "num_classes": 2, "dropout_ratio": 0.1, **head}
    return dict(
        type="VFMEncoderDecoder", backbone=vit, decode_head=head, test_cfg=dict(mode="slide")
    )


def run(toy, work_dir="run", **kwargs):
    """Make a runner on maps with the recipe's optimiser and schedule."""
    settings = dict(
        steps=8,
        model=model(),
        micro_batch="auto",
        train_dataloader=MAPS,
        val_dataloader=dict(MAPS, sampler=dict(type="DefaultSampler", shuffle=False)),
        checkpoint=dict(interval=1, max_keep_ckpts=-1, save_best=None),
        val_evaluator=dict(type="MeanIoUMetric"),
        optim_wrapper=dict(optimizer=dict(type="AdamW", lr=1e-3, weight_decay=1e-3)),
        param_scheduler=dict(type="WarmupOneCycleLR", warmup=3, by_epoch=False),
    )
    return toy(work_dir, **{**settings, **kwargs})


def weights(runner):
    runner.train()
    return {name: value.clone() for name, value in runner.model.state_dict().items()}


def test_a_run_counts_all_images_and_resumes_to_the_bit(toy, tmp_path):
    whole = weights(run(toy, "whole"))
    assert whole["decode_head.norm.num_batches_tracked"] == 8  # once a step
    record = read_record(tmp_path / "whole" / "record.json")
    assert (record.decoder, record.micro_batch) == ("dinov3-probe", 16)
    assert not any("micro-batch" in line for line in record.remarks)
    assert record.trainable_params == 2 * 24 + 24 * 2 + 2
    (tmp_path / "part").mkdir()
    shutil.copy(tmp_path / "whole" / "iter_3.pth", tmp_path / "part")
    resumed = weights(run(toy, "part", resume=True))
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)
    assert read_record(tmp_path / "part" / "record.json").miou == record.miou


def test_a_step_is_torch_s_on_sixteen_images(toy):
    """Running statistics and weights after two steps are those of plain layers and AdamW."""
    schedule = dict(type="WarmupOneCycleLR", warmup=0, by_epoch=False)
    nothing = dict(val_dataloader=None, val_cfg=None, val_evaluator=None)
    plain = model(dropout_ratio=0)
    runner = run(toy, steps=2, model=plain, param_scheduler=schedule, **nothing)
    runner.model.init_weights()
    reference = nn.Sequential(nn.BatchNorm2d(24), nn.Conv2d(24, 2, 1))
    reference[0].load_state_dict(runner.model.decode_head.norm.state_dict())
    reference[1].load_state_dict(runner.model.decode_head.conv_seg.state_dict())
    backbone, preprocess = runner.model.backbone, runner.model.data_preprocessor
    optimizer = torch.optim.AdamW(reference.parameters(), weight_decay=1e-3)
    batches = []
    train_step = runner.model.train_step
    runner.model.train_step = lambda data, optim_wrapper: (
        batches.append(data),
        train_step(data, optim_wrapper),
    )[1]
    runner.train()
    assert [len(batch["inputs"]) for batch in batches] == [16, 16]
    for batch in batches:
        data = preprocess(batch, True)
        labels = torch.cat([sample.gt_sem_seg.data for sample in data["data_samples"]])
        with torch.no_grad():
            (features,) = backbone(data["inputs"])
        logits = nn.functional.interpolate(reference(features), (32, 32), mode="bilinear")
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, labels).backward()
        optimizer.param_groups[0]["lr"] = 5e-4  # 1e-3 * (1 + cos(pi / 2)) / 2, in both steps
        optimizer.step()
    head = runner.model.decode_head
    for ours, theirs in ((head.norm, reference[0]), (head.conv_seg, reference[1])):
        for name, value in theirs.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("micro_batch", [1, 8])
def test_a_smaller_micro_batch_is_refused(micro_batch, toy):
    with pytest.raises(
        ValueError,
        match=rf"micro_batch={micro_batch}: the batch norm of BatchNormLinearHead is over all 16 "
        r"images of a step, so the 16 of each process .* use --micro-batch auto or 16",
    ):
        run(toy, micro_batch=micro_batch).train()


def test_all_images_stated_are_fine(toy):
    runner = run(toy, micro_batch=16, steps=4)
    runner.train()
    assert runner.train_loop.micro_batch == 16


def test_processes_on_cpus_are_refused(toy, monkeypatch):
    monkeypatch.setattr(train_loop, "get_world_size", lambda: 2)
    monkeypatch.setattr(train_loop, "get_device", lambda: "cpu")
    loader = dict(MAPS, batch_size=8)
    with pytest.raises(ValueError, match="SyncBatchNorm does on GPUs only; train in one process"):
        run(toy, train_dataloader=loader).train()
    monkeypatch.setattr(train_loop, "get_device", lambda: "cuda")
    assert run(toy, train_dataloader=loader).build_train_loop(
        dict(type="OptimStepTrainLoop", max_iters=4, micro_batch="auto", effective_batch=16)
    ).micro_batch == 8  # fmt: skip


def test_out_of_memory_does_not_advise_what_would_be_refused():
    error = torch.OutOfMemoryError("no memory")
    line = explain(error, 1, 16, 1, whole_batch="BatchNormLinearHead")
    assert "BatchNormLinearHead needs them at once: use more processes or another" in line
    assert "--micro-batch" not in line


def test_a_norm_that_is_not_over_all_images_is_still_said(monkeypatch):
    segmentor = MODELS.build(model())
    monkeypatch.setattr(head_checks, "get_world_size", lambda: 2)
    assert check_heads(segmentor) == []
    segmentor.decode_head.norm = nn.BatchNorm2d(24)  # of one process's images alone
    assert check_heads(segmentor) == ["batch norm (decode_head.norm)"]
    monkeypatch.setattr(head_checks, "get_world_size", lambda: 1)
    assert check_heads(segmentor) == []
    segmentor.neck = nn.SyncBatchNorm(4)
    assert check_heads(segmentor) == ["batch norm (neck)"]

"""A run with EoMT that is resumed while its masks are annealed ends with the same bits."""

import shutil

import torch


def run(toy, work_dir, **kwargs):
    vit = dict(type="TimmViT", model_name="vit_tiny_patch16_224", pretrained=False, depth=3)
    vit |= dict(embed_dim=24, num_heads=2, img_size=32, patch_size=8, open_blocks=2)
    loss = dict(type="Mask2FormerLoss", num_points=32)
    head = dict(type="EoMTHead", num_classes=2, num_queries=4, loss_decode=loss)
    loader = dict(
        num_workers=0,
        batch_size=16,
        dataset=dict(type="ToyMaps"),
        collate_fn=dict(type="pseudo_collate"),
        sampler=dict(type="PositionSampler"),
    )
    runner = toy(
        work_dir,
        steps=8,
        model=dict(type="VFMEncoderDecoder", backbone=vit, decode_head=head),
        train_dataloader=loader,
        checkpoint=dict(interval=1, max_keep_ckpts=-1, save_best=None),
        val_dataloader=None,
        val_cfg=None,
        val_evaluator=None,
        **kwargs,
    )
    runner.train()
    # Half of the first block's queries are masked at step 3 of 8, of the second's at step 5.
    assert runner.model.decode_head.mask_probabilities(3, 2) == [0.5**0.9, 1]
    return {name: value.clone() for name, value in runner.model.state_dict().items()}


def test_a_resumed_run_ends_as_the_whole_one(toy, tmp_path):
    whole = run(toy, "whole")
    (tmp_path / "part").mkdir()
    shutil.copy(tmp_path / "whole" / "iter_3.pth", tmp_path / "part")
    resumed = run(toy, "part", resume=True)
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)

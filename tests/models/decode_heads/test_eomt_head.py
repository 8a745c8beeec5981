"""EoMT in the benchmark's segmentor: annealing, micro-batches, learning, rates, errors."""

import copy
from itertools import pairwise

import pytest
import torch
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from vfm_ss.models.decode_heads.mask_annealing import equal_phases, mask_probability

SIZE, CLASSES, BLOCKS = 32, 5, 2


def make_segmentor(head=(), **backbone):
    torch.manual_seed(0)
    vit = dict(
        type="TimmViT",
        model_name="vit_tiny_patch16_224",
        pretrained=False,
        depth=4,
        embed_dim=48,
        num_heads=3,
        img_size=SIZE,
        patch_size=8,
        open_blocks=BLOCKS,
    )
    loss = dict(type="Mask2FormerLoss", num_points=64)
    return MODELS.build(
        dict(
            type="VFMEncoderDecoder",
            backbone={**vit, **backbone},
            decode_head={
                "type": "EoMTHead",
                "num_classes": CLASSES,
                "num_queries": 6,
                "loss_decode": loss,
                **dict(head),
            },
            test_cfg=dict(mode="slide"),
        )
    )


def make_data(images=4):
    """Images whose colour tells the class: two halves, a few pixels ignored."""
    generator = torch.Generator().manual_seed(0)
    inputs, samples = [], []
    for i in range(images):
        labels = torch.randint(0, CLASSES, (1, 1, 2), generator=generator)
        labels = labels.repeat_interleave(SIZE // 2, 2).expand(1, SIZE, SIZE).clone()
        inputs.append((50 * labels + torch.tensor([0, 20, 10]).view(3, 1, 1)).to(torch.uint8))
        labels[:, :3] = 255
        meta = {"img_shape": (SIZE, SIZE), "ori_shape": (SIZE, SIZE), "img_path": f"{i}.jpg"}
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=labels), metainfo=meta))
    return {"inputs": inputs, "data_samples": samples}


def step_gradients(step, num_micro_batches, dtype=torch.float64, max_steps=40):
    model = make_segmentor().to(dtype).train()
    head = model.decode_head
    head.begin_training(max_steps)
    data = make_data()
    head.begin_step(data["data_samples"], num_micro_batches, step, seed=3)
    indices = torch.arange(len(data["inputs"]))
    for part in indices.tensor_split(num_micro_batches):
        images = torch.stack([data["inputs"][i] for i in part]).to(dtype) / 64 - 1
        samples = [data["data_samples"][i].to("cpu") for i in part]
        (sum(model.loss(images, samples).values()) / num_micro_batches).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


# At step 15 of 40 the first block is half annealed, at 25 the second, at 35 there are no masks.
@pytest.mark.parametrize("step", [0, 15, 25, 35])
def test_neither_the_micro_batch_nor_a_repetition_changes_gradients(step):
    whole = step_gradients(step, 1)
    assert all(gradient is not None and gradient.isfinite().all() for gradient in whole.values())
    assert {n for n, gradient in whole.items() if not gradient.any()} == set()
    for num_micro_batches in (1, 2, 4):
        parts = step_gradients(step, num_micro_batches)
        for name, gradient in parts.items():
            torch.testing.assert_close(gradient, whole[name], rtol=0, atol=1e-12, msg=name)


def masked_queries(head, step, seed=0, images=50):
    samples = [
        SegDataSample(gt_sem_seg=PixelData(data=torch.zeros(1, 2, 2))) for _ in range(images)
    ]
    head.begin_step(samples, 1, step, seed)
    return head._masked_queries(samples, BLOCKS, torch.device("cpu"))


def test_the_share_of_masked_queries_is_annealed_block_after_block():
    head = make_segmentor(head=dict(num_queries=100)).decode_head
    head.begin_training(400)  # a phase is 100 steps
    assert masked_queries(head, 0).all()
    assert masked_queries(head, 100).all()
    for step, first, second in [(130, 0.7**0.9, 1), (199, 0.01**0.9, 1), (250, 0, 0.5**0.9)]:
        masked = masked_queries(head, step)
        assert torch.equal(masked, masked_queries(head, step))
        shares = masked.double().mean((1, 2)).tolist()
        assert shares == pytest.approx([first, second], abs=0.025)
        if 0 < first < 1:
            assert not torch.equal(masked, masked_queries(head, step + 1))
            assert not torch.equal(masked, masked_queries(head, step, seed=1))
            assert masked[0].any(1).sum() > 1, "images have draws of their own"
    assert masked_queries(head, 300) is None
    assert masked_queries(head, 399) is None


def test_the_schedule_is_the_published_one():
    """LightlyTrain's, of EoMT: six equal phases for 4 blocks, four of which anneal a block each."""
    phases = equal_phases(4, 39_120)
    assert phases == [(6520, 13040), (13040, 19560), (19560, 26080), (26080, 32600)]
    assert [mask_probability(step, *phases[1]) for step in (0, 13039, 13040)] == [1, 1, 1]
    assert [mask_probability(step, *phases[1]) for step in (19560, 39119)] == [0, 0]
    assert mask_probability(14670, *phases[1]) == pytest.approx(0.75**0.9, abs=1e-15)
    falling = [mask_probability(step, *phases[0]) for step in range(6520, 13041)]
    assert all(a > b for a, b in pairwise(falling))


def test_stated_phases_are_taken():
    head = make_segmentor(head=dict(mask_annealing=[(0, 10), (5, 5)])).decode_head
    head.begin_training(20)
    assert head.mask_probabilities(4, BLOCKS) == [0.6**0.9, 1]
    assert head.mask_probabilities(5, BLOCKS) == [0.5**0.9, 0]


@torch.no_grad()
def test_evaluation_masks_nothing_and_predicts_once():
    model = make_segmentor().eval()
    features = model.extract_feat(torch.randn(2, 3, SIZE, SIZE))
    class_logits, mask_logits = model.decode_head(features)
    assert class_logits.shape == (1, 2, 6, CLASSES + 1)
    assert mask_logits.shape == (1, 2, 6, 8, 8)  # a grid of 4, doubled once for patches of 8
    (blocks,) = features
    every = model.decode_head.decoder(blocks, every_block=True)
    assert len(every[0]) == BLOCKS + 1
    for last, one in zip(every, (class_logits, mask_logits), strict=True):
        assert torch.equal(last[-1], one[0])
    masked = torch.ones(BLOCKS, 2, 6, dtype=torch.bool)
    assert not torch.equal(model.decode_head.decoder(blocks, masked)[1], mask_logits)


def test_it_learns_and_predicts():
    model = make_segmentor().train()
    steps = 60
    model.decode_head.begin_training(steps)
    wrapper = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=3e-3))
    losses = []
    for step in range(steps):
        data = make_data(2)
        model.decode_head.begin_step(data["data_samples"], 1, step, 0)
        losses.append(model.train_step(data, wrapper)["loss"].item())
    assert losses[-1] < 0.35 * losses[0]
    model.eval()
    with torch.no_grad():
        results = model.val_step(make_data(2))
    for result in results:
        labels, predicted = result.gt_sem_seg.data, result.pred_sem_seg.data
        assert (predicted == labels)[labels != 255].double().mean() > 0.9


def test_the_open_blocks_stay_the_backbones_once():
    init_default_scope("mmseg")
    model = make_segmentor()
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    assert len(names) == len(set(names)) == len(list(model.parameters()))
    assert not any("block" in name for name in model.decode_head.state_dict())
    optimizer = dict(type="AdamW", lr=1e-4)
    cfg = dict(
        type="OptimWrapper", optimizer=optimizer, constructor="GroupedOptimWrapperConstructor"
    )
    for decay, last_block in ((None, 1e-5), (0.5, 0.5e-5)):
        paramwise = dict(custom_keys={"backbone": dict(lr_mult=0.1)})
        if decay:
            paramwise["layer_decay"] = decay
        wrapper = build_optim_wrapper(model, {**cfg, "paramwise_cfg": paramwise})
        rate = {p: g["lr"] for g in wrapper.optimizer.param_groups for p in g["params"]}
        named = dict(model.named_parameters())
        assert rate[named["backbone.vit.blocks.3.mlp.fc1.weight"]] == pytest.approx(last_block)
        assert rate[named["decode_head.decoder.queries.weight"]] == pytest.approx(1e-4)


def test_a_copy_runs_its_own_blocks():
    model = make_segmentor().eval()
    twin = copy.deepcopy(model)
    x = torch.randn(1, 3, SIZE, SIZE)
    with torch.no_grad():
        before = twin.decode_head(twin.extract_feat(x))
        for parameter in model.parameters():
            parameter.zero_()
        after = twin.decode_head(twin.extract_feat(x))
    assert torch.equal(before[1], after[1])


@pytest.mark.parametrize(
    ("head", "backbone", "message"),
    [
        ({}, dict(open_blocks=0), "EoMTHead runs the last blocks of the ViT itself, which TimmViT"),
        (dict(mask_annealing="linear"), {}, "mask_annealing must be 'auto'"),
        (dict(num_classes=1), {}, "num_classes must be at least 2"),
    ],
)
def test_wrong_settings_are_refused_when_built(head, backbone, message):
    with pytest.raises(ValueError, match=message) as error:
        make_segmentor(head, **backbone)
    assert "\n" not in str(error.value)


def test_a_head_of_maps_is_refused_behind_open_blocks():
    backbone = dict(type="TimmViT", model_name="vit_tiny_patch16_224", pretrained=False, depth=2,
                    img_size=32, open_blocks=1)  # fmt: skip
    cfg = dict(type="VFMEncoderDecoder", backbone=backbone)
    with pytest.raises(ValueError, match=r"open_blocks=1 leaves .* LinearHead takes maps"):
        MODELS.build({**cfg, "decode_head": dict(type="LinearHead", num_classes=2)})


def test_blocks_are_opened_for_it_where_nothing_is_stated():
    backbone = dict(type="DINOv2", pretrained=False, img_size=64)
    cfg = dict(type="VFMEncoderDecoder", decode_head=dict(type="EoMTHead", num_classes=2))
    with torch.device("meta"):
        for arch, number in (("base", 3), ("large", 4)):
            model = MODELS.build({**cfg, "backbone": {**backbone, "arch": arch}})
            assert model.backbone.open_blocks == number
    with pytest.raises(ValueError, match="which ResNet does not leave to it; use a VFM"):
        MODELS.build({**cfg, "backbone": dict(type="ResNet", depth=18)})


@pytest.mark.parametrize(
    ("annealing", "max_steps", "message"),
    [
        ("auto", None, "does not tell how long that is; use train_cfg.type='OptimStepTrainLoop'"),
        ([(0, 5), (5, 9)], None, "does not tell how long that is"),
        ([(0, 5)], 10, r"one \(start, end\) for each of the 2 open blocks"),
        ([(0, 5), (5, 11)], 10, "in optimiser steps up to the last, 10"),
        ([(0, 5), (6, 5)], 10, "in optimiser steps up to the last, 10"),
    ],
)
def test_annealing_that_would_not_be_what_it_says_is_refused(annealing, max_steps, message):
    model = make_segmentor(head=dict(mask_annealing=annealing)).train()
    if max_steps:
        model.decode_head.begin_training(max_steps)
    with pytest.raises(ValueError, match=message):
        model.train_step(make_data(), OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.0)))


def test_maps_and_other_widths_are_refused():
    model = make_segmentor()
    with pytest.raises(ValueError, match=r"set model\.backbone.open_blocks='auto'"):
        model.decode_head([torch.randn(1, 48, 4, 4)])
    (blocks,) = model.extract_feat(torch.randn(1, 3, SIZE, SIZE))
    blocks.tokens = blocks.tokens[..., :24]
    with pytest.raises(ValueError, match=r"set decode_head\.in_channels=24"):
        model.decode_head([blocks])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_training_under_autocast_is_finite(dtype):
    model = make_segmentor().train()
    model.decode_head.begin_training(10)
    batch = model.data_preprocessor(make_data(), True)
    with torch.autocast("cpu", dtype=dtype):
        losses = model.loss(**batch)
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())

"""The batched losses against transformers' and against the plain formulation."""

import pytest
import torch

import vfm_ss.models.losses.mask2former_matching as matching
from vfm_ss.models.losses import Mask2FormerLoss

# No target, one, several, more than the 5 queries, and mixtures.
BATCHES = [(0,), (0, 0), (1,), (4,), (9,), (5, 0, 1, 9), (0, 3, 2)]


def spy_on_assignment(patch, module):
    """Record the cost matrices that ``module`` solves, and the solutions."""
    calls, original = [], module.linear_sum_assignment

    def solve(cost):
        solution = original(cost)
        calls.append((torch.as_tensor(cost), torch.stack(list(map(torch.as_tensor, solution)))))
        return solution

    patch.setattr(module, "linear_sum_assignment", solve)
    return calls


def by_prediction(points, num_predictions):
    """Split each image's points by prediction: ``(P, pairs, S, 2)``."""
    return [image.view(num_predictions, -1, *image.shape[1:]) for image in points]


def transformers_losses(batch, loss, match_points, points):
    """Run transformers' loss one prediction after the other, at given points."""
    modeling = pytest.importorskip("transformers.models.mask2former.modeling_mask2former")
    from transformers import Mask2FormerConfig

    config = Mask2FormerConfig(
        num_labels=batch.class_logits.shape[-1] - 1,
        no_object_weight=loss.no_object_weight,
        class_weight=loss.class_weight,
        mask_weight=loss.mask_weight,
        dice_weight=loss.dice_weight,
        train_num_points=loss.num_points,
    )
    criterion = modeling.Mask2FormerLoss(config, weight_dict={}).double()
    classes = [torch.tensor(image, dtype=torch.long) for image in batch.classes]
    masks = [
        (labels == image[:, None, None]).double()
        for labels, image in zip(batch.label_maps, classes, strict=True)
    ]
    losses = []
    with pytest.MonkeyPatch.context() as patch:
        calls = spy_on_assignment(patch, modeling)
        for p, (class_logits, mask_logits) in enumerate(
            zip(batch.class_logits, batch.mask_logits, strict=True)
        ):
            draws = iter([(image[None] + 1) / 2 for image in match_points])
            at = torch.cat([(image[p] + 1) / 2 for image in points])
            patch.setattr(torch, "rand", lambda *_, draws=draws, **__: next(draws))
            patch.setattr(criterion, "sample_points_using_uncertainty", lambda *_, at=at: at)
            losses.append(criterion(mask_logits, class_logits, masks, classes))
    names = {
        "loss_cls": "loss_cross_entropy",
        "loss_mask": "loss_mask",
        "loss_dice": "loss_dice",
    }
    return {ours: torch.stack([x[name] for x in losses]) for ours, name in names.items()}, calls


@pytest.mark.parametrize("num_targets", BATCHES)
def test_equals_transformers(make_batch, loss, recorded_points, monkeypatch, num_targets):
    """Cost matrices, assignments, losses and gradients."""
    batch = make_batch(num_targets)
    num_predictions, num_images = batch.mask_logits.shape[:2]
    our_calls = spy_on_assignment(monkeypatch, matching)
    ours = batch.losses(loss)
    points = by_prediction(recorded_points["compare"], num_predictions)
    theirs, their_calls = transformers_losses(batch, loss, recorded_points["match"], points)

    # We go image by image, transformers prediction by prediction.
    assert len(our_calls) == len(their_calls) == num_predictions * num_images
    for p in range(num_predictions):
        for b in range(num_images):
            cost, pairs = our_calls[b * num_predictions + p]
            other_cost, other_pairs = their_calls[p * num_images + b]
            torch.testing.assert_close(cost, other_cost, rtol=0, atol=1e-6)
            assert torch.equal(pairs, other_pairs)
            assert pairs.shape[1] == min(num_targets[b], batch.mask_logits.shape[2])
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-6, msg=name)
    # transformers keeps its no-object weight in float32.
    assert_same_gradients(batch, loss.weighted_sum(ours), loss.weighted_sum(theirs), atol=1e-7)


@pytest.mark.parametrize("num_targets", BATCHES)
def test_equals_plain_formulation(make_batch, loss, recorded_points, plain, num_targets):
    batch = make_batch(num_targets, seed=1)
    ours = batch.losses(loss)
    points = by_prediction(recorded_points["compare"], len(batch.mask_logits))
    reference = plain.plain_losses(
        batch.class_logits,
        batch.mask_logits,
        batch.label_maps,
        loss,
        match_points=recorded_points["match"],
        points=points,
    )
    for name, value in reference.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-9, msg=name)
    assert_same_gradients(batch, loss.weighted_sum(ours), loss.weighted_sum(reference))


def assert_same_gradients(batch, ours, theirs, atol=1e-9):
    logits = batch.class_logits, batch.mask_logits
    ours = torch.autograd.grad(sum(ours.values()), logits)
    theirs = torch.autograd.grad(sum(theirs.values()), logits, materialize_grads=True)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=atol)


def test_normalising_by_image_is_the_mean_of_single_images(make_batch, loss):
    """What accumulating batches of one image does."""
    batch = make_batch((5, 0, 1, 9))
    seeds = [torch.Generator().manual_seed(i) for i in range(4)]
    together = batch.losses(loss, normalize="image", generators=seeds)
    alone = []
    for i in range(4):
        part = type(batch)(
            batch.class_logits[:, i : i + 1],
            batch.mask_logits[:, i : i + 1],
            batch.label_maps[i : i + 1],
        )
        generator = torch.Generator().manual_seed(i)
        alone.append(part.losses(loss, normalize="batch", generators=[generator]))
    for name, value in together.items():
        torch.testing.assert_close(value, sum(x[name] for x in alone) / 4, rtol=0, atol=1e-12)


def test_weighted_sum_adds_predictions_with_their_weights():
    loss = Mask2FormerLoss(class_weight=2, mask_weight=5, dice_weight=7)
    losses = {name: torch.tensor([1.0, 10.0]) for name in ("loss_cls", "loss_mask", "loss_dice")}
    total = loss.weighted_sum(losses)
    assert {name: value.item() for name, value in total.items()} == {
        "loss_cls": 22,
        "loss_mask": 55,
        "loss_dice": 77,
    }


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_finite_and_close(make_batch, loss, dtype):
    """Half-precision logits are compared in float32, under autocast too."""
    batch = make_batch((4, 0, 9), dtype=torch.float32)
    generators = lambda: [torch.Generator().manual_seed(i) for i in range(3)]  # noqa: E731
    exact = batch.losses(loss, generators=generators())
    half = type(batch)(
        batch.class_logits.detach().to(dtype).requires_grad_(),
        batch.mask_logits.detach().to(dtype).requires_grad_(),
        batch.label_maps,
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = half.losses(loss, generators=generators())
        sum(x.sum() for x in losses.values()).backward()
    for name, value in losses.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, exact[name], rtol=0.05, atol=0.02)
    for logits in (half.class_logits, half.mask_logits):
        assert logits.grad.isfinite().all()


def test_batch_without_targets_gives_zero_gradients_to_masks(make_batch, loss):
    """Zero, not None: DDP stops on a parameter without a gradient."""
    batch = make_batch((0, 0))
    losses = batch.losses(loss)
    assert losses["loss_mask"].tolist() == losses["loss_dice"].tolist() == [0, 0, 0]
    sum(x.sum() for x in losses.values()).backward()
    assert batch.mask_logits.grad.abs().max() == 0
    assert batch.class_logits.grad.abs().min() > 0


def test_overflowing_prediction_is_matched_last(make_batch, loss):
    batch = make_batch((3,))
    with torch.no_grad():
        batch.mask_logits[0, 0, 2] = torch.inf
        batch.class_logits[1, 0, 4] = torch.nan
    targets = {}

    def remember(pairs):
        targets["pairs"] = pairs
        return pairs

    with pytest.MonkeyPatch.context() as patch:
        original = matching.assign
        patch.setattr(
            "vfm_ss.models.losses.mask2former_loss.assign", lambda *a: remember(original(*a))
        )
        batch.losses(loss)
    _, prediction, query, _ = targets["pairs"]
    assert 2 not in query[prediction == 0].tolist()
    assert 4 not in query[prediction == 1].tolist()


def test_impossible_sampling_is_refused():
    with pytest.raises(ValueError, match=r"importance_sample_ratio=0.75.*oversample_ratio=0.5"):
        Mask2FormerLoss(oversample_ratio=0.5)
    with pytest.raises(ValueError, match=r"importance_sample_ratio=1\.5"):
        Mask2FormerLoss(importance_sample_ratio=1.5)

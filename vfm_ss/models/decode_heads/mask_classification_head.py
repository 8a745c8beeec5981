"""What heads share that predict a class and a mask for each of their queries.

Shape letters:
    B: images; K: classes; Q: queries; P: predictions of a forward pass; h, w: mask logits;
    H, W: image.
"""

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from mmengine.dist import get_rank, get_world_size
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from ..losses.mask2former_loss import Mask2FormerLoss
from ..losses.mask2former_targets import ImageTargets, batch_totals, find_classes, image_weights

# Key of a data sample's metainfo: what `begin_step` leaves for `loss`.
_PLAN = "mask_classification_plan"


class MaskClassificationHead(BaseDecodeHead):
    """A head with Mask2Former's losses, normalised over the effective batch.

    A training loop that accumulates gradients calls :meth:`begin_step` before the micro-batches of
    a step; gradients then depend neither on their size nor on the number of GPUs. Without it the
    losses are normalised over the batch at hand and all GPUs.

    A subclass makes its network ``decoder``, whose ``queries`` are an ``nn.Embedding``.

    Args:
        in_channels: Channels C of the feature map.
        num_classes: Number of classes K, at least 2.
        num_queries: Number of queries Q.
        channels: Channels of the decoder.
        loss_decode: Config of the loss, a ``Mask2FormerLoss``.
        normalize: ``'batch'``: mask losses are a mean over the target masks of the effective batch
            and the class loss one over its queries (Mask2Former). ``'image'``: over those of each
            image, then over the images (the authors' accumulated batches of one image).
        point_seed: With :meth:`begin_step`, seed of the random points. Default: the run's.
        in_index: Which output of the backbone to use.
        ignore_index: Label of pixels without a class.
        align_corners: As in mmseg.

    Raises:
        ValueError: If an argument is out of range.
    """

    decoder: nn.Module
    scores = True  # of classes is what it predicts, in place of logits

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        num_queries: int,
        channels: int,
        loss_decode: dict | None = None,
        normalize: str = "batch",
        point_seed: int | None = None,
        in_index: int = -1,
        ignore_index: int | None = 255,
        align_corners: bool = False,
    ):
        if not isinstance(in_index, int) or not isinstance(in_channels, int):
            raise ValueError(
                f"{type(self).__name__} takes one feature map, got in_index={in_index!r} and "
                f"in_channels={in_channels!r}: both must be integers"
            )
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}")
        if normalize not in ("batch", "image"):
            raise ValueError(f"normalize must be 'batch' or 'image', got {normalize!r}")
        super().__init__(
            in_channels,
            channels,
            num_classes=num_classes,
            out_channels=num_classes,
            dropout_ratio=0,
            in_index=in_index,
            loss_decode=loss_decode or {"type": "Mask2FormerLoss"},
            ignore_index=ignore_index,
            align_corners=align_corners,
            init_cfg=None,
        )
        if not isinstance(self.loss_decode, Mask2FormerLoss):
            raise ValueError(f"loss_decode must be a Mask2FormerLoss, got {loss_decode}")
        # mmseg's per-pixel classifier: without a gradient it would stop DDP.
        del self.conv_seg
        self.num_queries = num_queries
        self.normalize = normalize
        self.point_seed = point_seed
        self._step: int | None = None
        self._step_totals: Tensor | None = None
        self._step_parts = 1

    @abstractmethod
    def forward(self, inputs: Sequence) -> tuple[Tensor, Tensor]:
        """Predict; the last prediction is the result, the others are trained beside it.

        Args:
            inputs: Outputs of the backbone.

        Returns:
            Class logits ``(P, B, Q, K + 1)``, no-object last, and mask logits ``(P, B, Q, h, w)``.
        """

    def chosen_input(self, inputs: Sequence):
        """Return the output of the backbone at ``in_index``.

        Raises:
            ValueError: If there is none.
        """
        if not -len(inputs) <= self.in_index < len(inputs):
            raise ValueError(
                f"in_index={self.in_index}, but the backbone gives {len(inputs)} feature map(s): "
                f"change decode_head.in_index or the backbone's out_indices"
            )
        return inputs[self.in_index]

    def plans_of(self, data_samples: Sequence[SegDataSample]) -> list[dict] | None:
        """Return what :meth:`begin_step` found for each sample; None without it.

        A plan has the ``step``, the ``classes`` of the image and a ``seed`` of its own.
        """
        plans = [sample.metainfo.get(_PLAN) for sample in data_samples]
        if all(plan is not None and plan["step"] == self._step for plan in plans):
            return plans
        return None

    def begin_step(
        self,
        data_samples: Sequence[SegDataSample],
        num_micro_batches: int,
        step: int,
        seed: int | None = None,
    ) -> None:
        """Prepare an optimiser step whose batch comes in parts.

        Counts what the losses are normalised by over the whole effective batch (one all_reduce),
        and gives each image its own source of random points. Each micro-batch's loss is scaled so
        that the mean over micro-batches and GPUs is the loss of the effective batch.

        Args:
            data_samples: All samples of this GPU's share of the step, on any device. Image i of
                GPU r has index ``i * world_size + r`` in the effective batch.
            num_micro_batches: In how many parts :meth:`loss` will see them.
            step: Number of the optimiser step.
            seed: Seed of the run, the same on every GPU; None means torch's.

        Raises:
            ValueError: If a label is neither a class nor ``ignore_index``.
        """
        classes = self._find_classes(data_samples)
        device = self.decoder.queries.weight.device
        self._step = step
        self._step_totals = batch_totals(classes, self.num_queries, device)
        self._step_parts = num_micro_batches * get_world_size()
        seed = torch.initial_seed() if seed is None else seed
        seed = seed if self.point_seed is None else self.point_seed
        for index, (sample, image_classes) in enumerate(zip(data_samples, classes, strict=True)):
            index = index * get_world_size() + get_rank()
            entropy = np.random.SeedSequence([seed, step, index]).generate_state(1, np.uint64)
            # In the metainfo, because that is what follows a sample to the device.
            plan = {"step": step, "classes": image_classes, "seed": int(entropy[0])}
            sample.set_metainfo({_PLAN: plan})

    def loss_by_feat(
        self,
        predictions: tuple[Tensor, Tensor],
        batch_data_samples: Sequence[SegDataSample],
    ) -> dict[str, Tensor]:
        """Compute the losses, summed over the predictions.

        Args:
            predictions: What :meth:`forward` returns.
            batch_data_samples: Samples with ``gt_sem_seg`` of ``(1, H, W)``.

        Returns:
            ``loss_cls``, ``loss_mask`` and ``loss_dice``, weighted: scalars.

        Raises:
            ValueError: If a label is neither a class nor ``ignore_index``.
        """
        class_logits, mask_logits = predictions
        device = mask_logits.device
        plans = self.plans_of(batch_data_samples)
        if plans is not None:
            classes = [plan["classes"] for plan in plans]
            generators = [torch.Generator(device).manual_seed(plan["seed"]) for plan in plans]
            totals, parts = self._step_totals, self._step_parts
        else:
            classes = self._find_classes(batch_data_samples)
            generators = [None] * len(classes)
            totals, parts = batch_totals(classes, self.num_queries, device), get_world_size()

        labels = [sample.gt_sem_seg.data[0] for sample in batch_data_samples]
        targets = [ImageTargets(*image) for image in zip(labels, classes, generators, strict=True)]
        weights = image_weights(
            classes,
            totals,
            self.num_queries,
            self.loss_decode.no_object_weight,
            self.normalize,
            dtype=torch.promote_types(mask_logits.dtype, torch.float32),
        )
        mask_weights, class_weights = (parts * weight for weight in weights)
        losses = self.loss_decode(class_logits, mask_logits, targets, mask_weights, class_weights)
        return self.loss_decode.weighted_sum(losses)

    def predict_by_feat(
        self, predictions: tuple[Tensor, Tensor], batch_img_metas: list[dict]
    ) -> Tensor:
        """Combine the last prediction to class scores at image size.

        Args:
            predictions: What :meth:`forward` returns.
            batch_img_metas: Metainfo of the images, as mmseg gives it.

        Returns:
            ``(B, K, H, W)``: the sum over queries of mask probability times class probability.
        """
        class_logits, mask_logits = (logits[-1] for logits in predictions)
        masks = super().predict_by_feat(mask_logits, batch_img_metas).sigmoid()
        classes = class_logits.softmax(dim=-1)[..., :-1]
        return torch.einsum("bqk,bqhw->bkhw", classes, masks)

    def _find_classes(self, data_samples: Sequence[SegDataSample]) -> list[list[int]]:
        labels = [sample.gt_sem_seg.data for sample in data_samples]
        names = [_name(sample.metainfo) for sample in data_samples]
        return find_classes(labels, self.num_classes, self.ignore_index, names)


def _name(metainfo: dict) -> str:
    """Name an image and its label file, as far as they are known."""
    image = metainfo.get("img_path", "an image without img_path")
    labels = metainfo.get("seg_map_path")
    return f"{labels} of {image}" if labels else image

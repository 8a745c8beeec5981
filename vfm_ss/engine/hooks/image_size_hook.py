from mmengine.hooks import Hook
from mmseg.registry import HOOKS

from vfm_ss.image_size import fill_image_size, model_image_size


@HOOKS.register_module()
class ImageSizeHook(Hook):
    """Give the transforms that state no size the model's, ``model.backbone.img_size``.

    So a config states its crop size once. ``OptimStepTrainLoop`` has done it for the training data
    already: a loop that starts its data workers when it is built is too early for a hook.
    """

    priority = "VERY_HIGH"

    def before_train(self, runner) -> None:
        """Fill in the training crop; warn where a stated one differs.

        Raises:
            ValueError: If the backbone's config states no size and its default is not the
                ``crop_size`` of the data set's base config.
        """
        size = model_image_size(runner.model)
        _refuse_default(runner.cfg, size)
        others = fill_image_size(runner.train_dataloader, size) - {size}
        if size is not None and others:
            runner.logger.warning(
                f"The training crop is {' and '.join(map(str, sorted(others)))}, but "
                f"model.backbone.img_size is {size}: smaller crops are padded, larger ones "
                "refused; leave the crop's size out of train_pipeline, and set img_size alone"
            )

    def before_val(self, runner) -> None:
        """Fill in the size of validation images."""
        fill_image_size(runner.val_dataloader, model_image_size(runner.model))

    def before_test(self, runner) -> None:
        """Fill in the size of test images."""
        fill_image_size(runner.test_dataloader, model_image_size(runner.model))


def _refuse_default(cfg, size: tuple[int, int] | None) -> None:
    """Refuse the size that a backbone has only because its config was replaced without one."""
    backbone, crop = (cfg.get("model") or {}).get("backbone") or {}, cfg.get("crop_size")
    if None in (size, crop) or "img_size" in backbone or tuple(crop) == size:
        return
    raise ValueError(
        f"model.backbone states no img_size, and {backbone.get('type')} takes {size}, but the "
        f"data set's crop_size is {tuple(crop)}: state the one you mean as img_size"
    )

"""A trained model from its config and checkpoint, without a runner."""

from collections.abc import Sequence

from mmengine.config import Config
from mmengine.runner import load_state_dict
from mmseg.registry import MODELS
from torch import nn

from vfm_ss.models.backbones.late_weights import LATER, reading

from .checkpoint_io import load_from_local, weights_of
from .resume import check_model_weights


def load_trained(
    cfg: Config, checkpoint: str, device: str = "cpu", classes: Sequence[str] | None = None
) -> tuple[nn.Module, dict]:
    """Build a segmentor and load a checkpoint, whose weights it has to hold all of.

    Nothing is downloaded, no pretrained file is needed, and nothing in the checkpoint is executed.

    Args:
        cfg: Config of the run.
        checkpoint: Path of the checkpoint.
        device: Where the model will be.
        classes: Names of the classes that its predictions will be called by, in order.

    Returns:
        The model, in evaluation mode, and what the checkpoint holds.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If it is damaged, of another model, or was trained on other classes.
    """
    loaded = load_from_local(checkpoint, "cpu")
    meta = loaded.get("meta") or {}
    trained = (meta.get("dataset_meta") or {}).get("classes")
    if None not in (trained, classes) and list(trained) != list(classes):
        raise ValueError(
            f"{checkpoint} was trained on the classes {_some(trained)}, but "
            f"test_dataloader.dataset of the config has {_some(classes)}; use the config "
            "that it was trained with"
        )
    with reading(LATER):
        model = MODELS.build(cfg.model)
    check_model_weights(model, loaded, checkpoint)
    load_state_dict(model, weights_of(loaded))
    heads = getattr(model, "decode_head", None)
    count = getattr(heads, "num_classes", None)
    if None not in (count, classes) and count != len(classes):
        raise ValueError(
            f"model.decode_head.num_classes is {count}, but test_dataloader.dataset of the config "
            f"has {len(classes)} classes"
        )
    return model.to(device).eval(), loaded


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(map(str, names[:3]))
    return f"{shown}, ... ({len(names)})" if len(names) > 3 else shown

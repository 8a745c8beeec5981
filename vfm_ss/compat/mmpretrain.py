"""What mmpretrain's models have no public way for."""

from mmengine.model import BaseModule


def init_weights_quietly(model: BaseModule) -> None:
    """Initialise the weights of a model without a paragraph of log for each of them.

    ``BaseModule.init_weights`` of mmengine ends in ``_dump_init_info``, which cannot be turned off.
    Checked: mmengine 0.10.7, onedl-mmengine 0.10.12.
    """
    model._dump_init_info = lambda: None
    try:
        model.init_weights()
    finally:
        del model._dump_init_info

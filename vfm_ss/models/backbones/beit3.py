from mmseg.registry import MODELS
from torch import nn

from .vfm import VFMBackbone


@MODELS.register_module()
class BEiT3(VFMBackbone):
    """The vision expert of BEiT-3, its final norm applied to every token.

    timm norms the average of the tokens instead (``global_pool='avg'``), which suits
    classification. Accepted are timm's checkpoints and the published ``beit3.*`` ones.
    """

    key = "beit3"
    # In the published checkpoint once timm has renamed the rest, and in timm's own.
    final_norm_names = ("layer_norm.", "fc_norm.")

    def _build(self, model_name: str, **timm_kwargs) -> nn.Module:
        return super()._build(model_name, global_pool="token", **timm_kwargs)

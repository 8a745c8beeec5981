from mmseg.registry import MODELS
from torch import Tensor, nn

from .vfm import VFMBackbone

# Where the final norm stands: in the published checkpoint once timm has renamed the rest, and in
# timm's, whose model averages the tokens first.
_FINAL_NORMS = ("layer_norm.", "fc_norm.")


@MODELS.register_module()
class BEiT3(VFMBackbone):
    """The vision expert of BEiT-3, its final norm applied to every token.

    timm norms the average of the tokens instead (``global_pool='avg'``), which suits
    classification. Accepted are timm's checkpoints and the published ``beit3.*`` ones.
    """

    key = "beit3"

    def _build(self, model_name: str, **timm_kwargs) -> nn.Module:
        return super()._build(model_name, global_pool="token", **timm_kwargs)

    def _convert(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        converted = {}
        for name, value in super()._convert(state_dict).items():
            for prefix in _FINAL_NORMS:
                if name.startswith(prefix):
                    name = "norm." + name.removeprefix(prefix)
            converted[name] = value
        return converted

from mmengine.config import ConfigDict
from mmseg.registry import MODELS

from vfm_ss.image_size import fill_image_size, model_image_size

from ..backbones.plain_vit import PlainViT
from .sliding_window import SlidingWindowEncoderDecoder


@MODELS.register_module()
class VFMEncoderDecoder(SlidingWindowEncoderDecoder):
    """A segmentor that takes from the backbone what the backbone decides.

    The mean and standard deviation of the input, its size in training, the size of the test
    windows and the width of the features follow from the VFM. A config that names another
    backbone therefore never keeps stale ones. A head that runs the last blocks of the ViT itself
    (``EoMTHead``) gets them: the backbone's ``open_blocks`` is then ``'auto'`` where not stated.

    Args:
        backbone: Config of a backbone of this package (or any with the attributes ``mean`` and
            ``std`` in [0, 1], ``img_size`` in pixels and ``embed_dim``).
        decode_head: Config of a decode head; ``in_channels`` defaults to the backbone's.
        data_preprocessor: Config of an mmseg data preprocessor, without ``mean`` and ``std``.
        test_cfg: See ``SlidingWindowEncoderDecoder``; ``crop_size`` defaults to the backbone's.
        **kwargs: See mmseg's ``EncoderDecoder``.

    Raises:
        ValueError: If the data preprocessor states other statistics than the backbone's.
    """

    def __init__(
        self,
        backbone: dict,
        decode_head: dict,
        data_preprocessor: dict | None = None,
        test_cfg: dict | None = None,
        **kwargs,
    ):
        if _takes_open_blocks(decode_head)[0] and _is_plain_vit(backbone):
            backbone = {"open_blocks": "auto", **backbone}
        super().__init__(backbone=backbone, decode_head=decode_head, test_cfg=test_cfg, **kwargs)
        self.test_cfg = ConfigDict({"crop_size": self.backbone.img_size, **(test_cfg or {})})
        self.data_preprocessor = MODELS.build(self._with_statistics(data_preprocessor or {}))

    def get_layer_depth(self, param_name: str) -> None:
        """Refuse mmpretrain's constructor of layer-wise decay, which would ignore ``lr_mult``."""
        raise ValueError(
            "mmpretrain's constructor of layer-wise decay ignores lr_mult; use "
            "constructor='GroupedOptimWrapperConstructor' with paramwise_cfg=dict(layer_decay=...)"
        )

    @property
    def cfg(self):
        """Config of the whole run, where mmseg's ``init_model`` or an inferencer has set it."""
        return self._cfg

    @cfg.setter
    def cfg(self, cfg) -> None:
        # They build pipelines from it, without a runner whose hook could give them a size.
        for part in (
            *("train_pipeline", "test_pipeline", "tta_pipeline"),
            *("train_dataloader", "val_dataloader", "test_dataloader"),
        ):
            fill_image_size(cfg.get(part), model_image_size(self))
        dataset = (cfg.get("test_dataloader") or {}).get("dataset") or {}
        for pipeline in (cfg.get("test_pipeline"), dataset.get("pipeline")):
            _take_arrays(pipeline, dataset.get("bit_depth", 8))
        self._cfg = cfg

    def build_decode_head(self, decode_head: dict) -> None:
        """Build the decode head for features of the backbone's width.

        Raises:
            ValueError: If the head needs the backbone's last blocks and does not get them, or gets
                them and needs maps.
        """
        takes_blocks, kind = _takes_open_blocks(decode_head)
        given_blocks = getattr(self.backbone, "open_blocks", 0)
        if given_blocks and not takes_blocks:
            raise ValueError(
                f"model.backbone.open_blocks={given_blocks} leaves the last blocks of the ViT to "
                f"the head, but {kind} takes maps; leave it out, or use EoMTHead"
            )
        if takes_blocks and not given_blocks:
            raise ValueError(
                f"{kind} runs the last blocks of the ViT itself, which "
                f"{type(self.backbone).__name__} does not leave to it; use a VFM or TimmViT, and "
                "leave out model.backbone.open_blocks"
            )
        given = {"in_channels": self.backbone.embed_dim}
        if takes_blocks:
            given["patch_size"] = self.backbone.patch_size
        super().build_decode_head({**given, **decode_head})

    def _with_statistics(self, data_preprocessor: dict) -> dict:
        statistics = {
            "mean": [255 * value for value in self.backbone.mean],
            "std": [255 * value for value in self.backbone.std],
        }
        for name, value in statistics.items():
            stated = data_preprocessor.get(name)
            if stated is not None and list(stated) != value:
                raise ValueError(
                    f"data_preprocessor.{name} is {list(stated)}, but the weights of "
                    f"{type(self.backbone).__name__} were trained with {value}; remove it, the "
                    "segmentor takes it from the backbone"
                )
        return {
            "type": "PaddingSegDataPreProcessor",
            "size": self.backbone.img_size,
            **data_preprocessor,
            **statistics,
        }


def _class_of(cfg: dict):
    """Return the class that a config names, or is."""
    kind = cfg.get("type")
    return MODELS.get(kind) if isinstance(kind, str) else kind


def _takes_open_blocks(decode_head: dict) -> tuple[bool, str]:
    """Return whether a head runs the last blocks of the backbone, and its name."""
    kind = _class_of(decode_head)
    return getattr(kind, "takes_open_blocks", False), getattr(kind, "__name__", str(kind))


def _is_plain_vit(backbone: dict) -> bool:
    kind = _class_of(backbone)
    return isinstance(kind, type) and issubclass(kind, PlainViT)


def _take_arrays(pipeline: list | None, bit_depth: int) -> None:
    """Let a test pipeline load what mmseg's inference passes to it, under the name it looks for."""
    if pipeline and pipeline[0].get("type") == "LoadImage":
        pipeline[0].update(type="LoadImageFromFile", _scope_="vfm_ss", bit_depth=bit_depth)

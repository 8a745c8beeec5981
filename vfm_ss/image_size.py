"""The model's image size is stated once, in its backbone; the transforms take it from there.

A size is (height, width) in pixels.
"""

from collections.abc import Mapping
from typing import ClassVar

#: Where loaders, datasets, wrappers and transforms hold other ones; configs use the same names.
_HOLDERS = ("dataset", "datasets", "pipeline", "transforms", "subroutines")


class ImageSized:
    """Mixin of a transform that works at the model's image size unless its config states a size.

    Attributes:
        SIZE: Name of the argument, and of the attribute, that holds the size; None is the model's.
    """

    SIZE: ClassVar[str]
    _classes: ClassVar[dict[str, type["ImageSized"]]] = {}

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        ImageSized._classes[cls.__name__] = cls

    def check_size(self) -> None:
        """Refuse to work without a size.

        Raises:
            ValueError: If none is stated and nothing has filled it in.
        """
        if getattr(self, self.SIZE) is None:
            raise ValueError(
                f"{type(self).__name__} has no {self.SIZE}: state {self.SIZE}=(height, width) in "
                "the pipeline, or state model.backbone.img_size and let "
                "default_hooks.image_size=dict(type='ImageSizeHook') with OptimStepTrainLoop, or "
                "model.cfg = cfg of a VFMEncoderDecoder, fill it in"
            )


def nearest_multiples(side: int, step: int) -> list[int]:
    """Return the multiples of a step nearest to a side that is none: the nearest first.

    Args:
        side: In pixels.
        step: In pixels, what sides have to be multiples of.
    """
    below = side // step * step
    found = [size for size in (below, below + step) if size]
    return sorted(found, key=lambda size: abs(size - side))


def model_image_size(model) -> tuple[int, int] | None:
    """Return the size that a model's backbone is built for; None where it does not say."""
    while hasattr(model, "module"):  # distributed, or with test-time augmentation
        model = model.module
    size = getattr(getattr(model, "backbone", None), "img_size", None)
    if size is None:
        return None
    return (size, size) if isinstance(size, int) else tuple(size)


def fill_image_size(node, size: tuple[int, int] | None) -> set[tuple[int, int]]:
    """Give a size to the transforms that state none.

    Args:
        node: A dataloader, dataset, pipeline or transform, built or as a config; wrappers of
            datasets and of transforms are looked into.
        size: The size; None changes nothing.

    Returns:
        The sizes of all transforms that have one now.
    """
    if isinstance(node, (list, tuple)):
        return set().union(*(fill_image_size(part, size) for part in node))
    if node is None or isinstance(node, str):
        return set()
    config = isinstance(node, Mapping)
    found = set()
    cls = _class_of(node) if config else type(node)
    if issubclass(cls, ImageSized):
        stated = node.get(cls.SIZE) if config else getattr(node, cls.SIZE)
        if stated is None and size is not None:
            stated = size
            if config:
                node[cls.SIZE] = size
            else:
                setattr(node, cls.SIZE, size)
        found = set() if stated is None else {tuple(stated)}
    for name in _HOLDERS:
        found |= fill_image_size(node.get(name) if config else getattr(node, name, None), size)
    return found


def _class_of(config: Mapping) -> type:
    """Return the class that a transform's config names, where it is one of these."""
    kind = config.get("type")
    if isinstance(kind, type):
        return kind
    return ImageSized._classes.get(str(kind).rsplit(".", 1)[-1], object)

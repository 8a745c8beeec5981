"""A fraction of a training set: nested, the same on every machine, and with every class."""

import hashlib
import logging
import posixpath
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.logging import print_log
from mmseg.registry import DATASETS

from vfm_ss.protocol.fractions import parse_fraction

from .class_presence import class_presence
from .probe import class_names, image_folders, quoted

#: A class that so many images of the whole set hold is in every fraction that has the room.
KEPT_IMAGES = 16


@dataclass(frozen=True)
class Subset:
    """What was chosen of a training set.

    Attributes:
        fraction: The share that was asked for.
        seed: The seed of the choice.
        whole: Number of samples of the whole set.
        names: Names of the chosen samples, in the order of the data set.
        lost: Images of the whole set that hold a class, for each class that none of the chosen
            ones holds.
    """

    fraction: Fraction
    seed: int
    whole: int
    names: tuple[str, ...]
    lost: dict[str, int]

    def __str__(self) -> str:
        """Describe it in a line."""
        return (
            f"fraction {self.fraction} of the training set (subset seed {self.seed}): "
            f"{len(self.names)} of {self.whole} samples"
        )

    @property
    def loss(self) -> str | None:
        """What it lost, in a line; None where it holds every class of the whole set."""
        if not self.lost:
            return None
        words = ", ".join(f"{name!r} (in {count})" for name, count in self.lost.items())
        return f"{self}, none of which holds classes that the whole set holds: {words}"


def build_dataset(cfg: Mapping):
    """Build a data set, or the fraction of it that its config asks for.

    ``fraction`` and ``subset_seed`` (0) go beside any data set's own arguments, and beside those of
    ``ConcatDataset``, ``RepeatDataset`` and other wrappers, whose parts are then chosen from
    together. What is left out is never read again: where a sample cannot be used, another one of
    the fraction takes its place.

    Args:
        cfg: Config of a data set.

    Returns:
        The data set. Of a fraction, its attribute ``subset`` is a `Subset`.

    Raises:
        ValueError: If the fraction is none, or cannot be taken of this data set.
    """
    cfg = dict(cfg)
    fraction, seed = cfg.pop("fraction", None), cfg.pop("subset_seed", 0)
    fraction = parse_fraction(1 if fraction is None else fraction)
    if type(seed) is not int or seed < 0:
        raise ValueError(f"subset_seed is {seed!r}, expected an integer from 0")
    if fraction == 1:
        return DATASETS.build(cfg)
    leaves: list = []
    cfg = _build_leaves(cfg, leaves)
    subset = _choose(leaves, fraction, seed)
    dataset = DATASETS.build(cfg) if isinstance(cfg, Mapping) else cfg
    dataset.subset = subset
    print_log(str(subset), logger="current")
    if subset.loss:
        print_log(subset.loss, logger="current", level=logging.WARNING)
    return dataset


def nested_order(names: Sequence[str], presence: np.ndarray, seed: int) -> list[int]:
    """Return the order in which fractions take samples: each takes the first ones.

    So a smaller fraction is part of every larger one. The order is random, by checksums of seed and
    names; ahead of it come the few samples that a small fraction needs to hold every class: for
    each class of `KEPT_IMAGES` images that they lack so far, from the rarest to the most frequent,
    one of its images with the most such classes.

    Args:
        names: Name of every sample, N of them.
        presence: (N, classes) bool, which classes each sample holds.
        seed: Seed of the order.

    Returns:
        All indices.
    """
    digests = [
        hashlib.sha256(f"{seed}\n{name}".encode("utf-8", "surrogateescape")).digest()
        for name in names
    ]
    order = np.array(sorted(range(len(names)), key=lambda i: (digests[i], i)), dtype=int)
    images = presence.sum(0)
    wanted = images >= KEPT_IMAGES
    first: list[int] = []
    for k in np.argsort(images, kind="stable"):
        if wanted[k]:
            holders = order[presence[order, k]]
            best = int(holders[np.argmax(presence[holders][:, wanted].sum(1))])
            first.append(best)
            wanted &= ~presence[best]
    taken = set(first)
    return first + [int(i) for i in order if i not in taken]


def sample_names(datasets: Sequence) -> list[str]:
    """Name the samples of data sets without where they lie: moved data stay the same data.

    Returns:
        For each sample the number of its data set and the image's path below its folder of images,
        without suffix.

    Raises:
        ValueError: If a data set does not list its images.
    """
    found = []
    for number, dataset in enumerate(datasets):
        if not hasattr(dataset, "get_data_info") or not hasattr(dataset, "get_subset_"):
            raise ValueError(
                f"{type(dataset).__name__} does not list its samples, so no fraction of it can be "
                "taken; derive it from mmseg's BaseSegDataset"
            )
        folders = sorted(image_folders(dataset), key=len, reverse=True)
        for index in range(len(dataset)):
            path = dataset.get_data_info(index)["img_path"]
            root = next((r for r in folders if path.startswith(f"{r}/")), posixpath.dirname(path))
            name = posixpath.splitext(path[len(root) :].lstrip("/"))[0]
            found.append(f"{number}/{unicodedata.normalize('NFC', name)}")
    return found


def _build_leaves(cfg: Mapping, leaves: list):
    """Build the data sets inside of wrappers, whose lengths follow from theirs."""
    for name in ("fraction", "subset_seed"):
        if name in cfg:
            raise ValueError(
                f"{name} is stated inside of a wrapper of data sets; state it once, in "
                "train_dataloader.dataset, for all parts together"
            )
    cfg = dict(cfg)
    if isinstance(cfg.get("dataset"), Mapping):
        cfg["dataset"] = _build_leaves(cfg["dataset"], leaves)
    elif cfg.get("datasets"):
        cfg["datasets"] = [_build_leaves(part, leaves) for part in cfg["datasets"]]
    else:
        leaves.append(DATASETS.build(cfg))
        return leaves[-1]
    return cfg


def _choose(datasets: list, fraction: Fraction, seed: int) -> Subset:
    """Reduce data sets to a fraction of all their samples; the main process chooses for all."""
    names = sample_names(datasets)
    count = max(1, int(fraction * len(names) + Fraction(1, 2)))
    answer: list = [None, None, None]
    if is_main_process():
        try:
            presence = class_presence(datasets)
            chosen = sorted(nested_order(names, presence, seed)[:count])
            answer = [chosen, _lost(datasets[0], presence, chosen), None]
        except (ValueError, OSError) as error:  # all processes end together
            answer[2] = error
    broadcast_object_list(answer)
    chosen, lost, error = answer
    if error is not None:
        raise error
    start = 0
    for dataset in datasets:
        end = start + len(dataset)
        own = [i - start for i in chosen if start <= i < end]
        if not own:
            raise ValueError(
                f"fraction {fraction} leaves no sample of {dataset.data_root}, a part of the "
                "training set; take a larger one"
            )
        dataset.whole = len(dataset)
        dataset.get_subset_(own)
        start = end
    return Subset(fraction, seed, len(names), tuple(names[i] for i in chosen), lost)


def _lost(dataset, presence: np.ndarray, chosen: list[int]) -> dict[str, int]:
    """Return the classes that are lost.

    Raises:
        ValueError: If fewer than two are left to train on.
    """
    names = class_names(dataset)[: presence.shape[1]]
    before, after = presence.sum(0), presence[chosen].any(0)
    if after.sum() < min(2, (before > 0).sum()):
        raise ValueError(
            f"{dataset.data_root}: {len(chosen)} of {len(presence)} samples hold pixels of "
            f"{quoted(np.array(names)[after])} only, training needs two classes; take a larger "
            "fraction"
        )
    return {names[k]: int(before[k]) for k in np.flatnonzero((before > 0) & ~after)}

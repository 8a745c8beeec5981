"""What mmengine's and mmseg's datasets keep private.

Checked with mmengine 0.10.7 and mmsegmentation 1.2.2, onedl-mmengine 0.10.12 and
onedl-mmsegmentation 1.4.2.
"""


class OpenDatasetMixin:
    """Comes before mmseg's ``BaseSegDataset`` in the bases of a mixin of ours."""

    def join_prefix(self) -> None:
        """Join ``data_root`` with ``data_prefix`` and ``ann_file``, before files are listed."""
        super()._join_prefix()

    def _join_prefix(self) -> None:
        self.join_prefix()

    @property
    def is_listed(self) -> bool:
        """Whether the files have been listed (``full_init``)."""
        return self._fully_initialized

    @property
    def is_subset(self) -> bool:
        """Whether ``indices`` choose a part of the samples."""
        return is_subset(self)


def is_subset(dataset) -> bool:
    """Whether ``indices`` of a dataset of mmengine choose a part of its samples."""
    return getattr(dataset, "_indices", None) is not None

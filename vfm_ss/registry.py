"""Child registries of mmseg's, under the scope that mmengine gives to our inherited configs.

``_base_ = 'vfm_ss::...'`` makes mmengine look modules up in the scope ``vfm_ss``. These registries
are empty but for one transform: every module of this package is registered in mmseg's, where any
mmseg project finds it.

The packages that hold registered modules import this one first, so that importing any of them
imports mmseg and thereby registers them all.
"""

from vfm_ss.compat import stack

stack.check()

import mmseg.registry  # noqa: E402
from mmengine.registry import Registry  # noqa: E402

from vfm_ss.compat.registry import child_of  # noqa: E402

_CHILDREN = [
    child_of(parent, "vfm_ss", "vfm_ss")
    for parent in vars(mmseg.registry).values()
    if isinstance(parent, Registry)
]

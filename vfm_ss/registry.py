"""Child registries of mmseg's, under the scope that mmengine gives to our inherited configs.

``_base_ = 'vfm_ss::...'`` makes mmengine look modules up in the scope ``vfm_ss``. These registries
are empty: every module of this package is registered in mmseg's, where any mmseg project finds it.
A look-up goes on to mmseg's, but does not make them import what they hold, so these do.

The packages that hold registered modules import this one first, so that importing any of them
imports mmseg and thereby registers them all.
"""

from vfm_ss.compat import stack

stack.check()

import mmseg.registry  # noqa: E402
from mmengine.registry import Registry  # noqa: E402

_CHILDREN = [
    Registry(parent.name, parent=parent, scope="vfm_ss", locations=[*parent._locations, "vfm_ss"])
    for parent in vars(mmseg.registry).values()
    if isinstance(parent, Registry)
]

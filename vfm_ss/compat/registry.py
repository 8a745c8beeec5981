"""What mmengine's registries keep private.

Checked with mmengine 0.10.7 and onedl-mmengine 0.10.12.
"""

from mmengine.registry import Registry


def child_of(parent: Registry, scope: str, location: str) -> Registry:
    """Make an empty registry that finds what its parent holds.

    A look-up goes on to the parent, but does not make it import what it holds, so the child imports
    the parent's modules itself.

    Args:
        parent: The registry that holds the modules.
        scope: Scope of the new one.
        location: Module to import beside the parent's.
    """
    locations = [*parent._locations, location]
    return Registry(parent.name, parent=parent, scope=scope, locations=locations)

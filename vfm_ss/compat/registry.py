"""What mmengine's registries keep private.

Checked with mmengine 0.10.7 and onedl-mmengine 0.10.12.
"""

from mmengine.registry import Registry


def child_of(parent: Registry, scope: str, location: str) -> Registry:
    """Return the child of a registry in a scope; make one that finds what its parent holds.

    A look-up goes on to the parent, but does not make it import what it holds, so the child imports
    the parent's modules itself.

    Args:
        parent: The registry that holds the modules.
        scope: Scope of the new one.
        location: Module to import beside the parent's.
    """
    if scope in parent.children:
        return parent.children[scope]
    locations = [*parent._locations, location]
    return Registry(parent.name, parent=parent, scope=scope, locations=locations)

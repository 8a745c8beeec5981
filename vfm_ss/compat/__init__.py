"""The seam to the libraries below: the only place for their private and patched names.

Each module says which versions it was checked with and why it is needed. ``stack`` and
``import_hooks`` need the standard library and packaging alone.
"""

"""Linear probing: the default setting with a frozen encoder."""

_base_ = "./default.py"

model = dict(backbone=dict(frozen=True))

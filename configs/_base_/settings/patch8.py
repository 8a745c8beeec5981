"""8x8 patches: the default setting with four times as many tokens."""

_base_ = "./default.py"

model = dict(backbone=dict(patch_size=8))

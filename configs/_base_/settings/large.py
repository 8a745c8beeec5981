"""ViT-L: the default setting with the large model."""

_base_ = "./default.py"

model = dict(backbone=dict(arch="large"))

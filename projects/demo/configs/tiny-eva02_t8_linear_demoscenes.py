_base_ = "./_base_/linear.py"

model = dict(backbone=dict(type="EVA02", embed_dim=128, depth=4, num_heads=4))
default_hooks = dict(record=dict(vfm="tiny-eva02"))

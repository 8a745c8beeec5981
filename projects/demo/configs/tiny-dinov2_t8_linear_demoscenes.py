_base_ = "./_base_/linear.py"

# Layer scale starts at DINOv2's 1e-5 for pretraining; a few hundred steps need more of the blocks.
model = dict(backbone=dict(type="DINOv2", embed_dim=128, depth=4, num_heads=4, init_values=0.1))
default_hooks = dict(record=dict(vfm="tiny-dinov2"))

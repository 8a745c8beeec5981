_base_ = "./_base_/linear.py"

model = dict(
    backbone=dict(
        type="TimmViT",
        model_name="vit_tiny_patch16_224",
        embed_dim=128,
        depth=4,
        num_heads=4,
    )
)
default_hooks = dict(record=dict(vfm="tiny-vit"))

"""A ViT-Ti from random weights at a small crop, which two CPU cores train in under an hour."""

_base_ = "./dinov2_b16_linear_camvid.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="TimmViT",
        model_name="vit_tiny_patch16_224",
        img_size=(256, 256),
        pretrained=False,
    )
)
train_dataloader = dict(num_workers=1)
val_dataloader = dict(num_workers=1)
test_dataloader = val_dataloader

# Random weights need a larger rate than the 1e-5 that suits pretrained ones.
optim_wrapper = dict(optimizer=dict(lr=1e-3), paramwise_cfg=dict(_delete_=True, custom_keys=dict()))
train_cfg = dict(max_iters=800, val_interval=200, micro_batch=16)
default_hooks = dict(checkpoint=dict(interval=200))

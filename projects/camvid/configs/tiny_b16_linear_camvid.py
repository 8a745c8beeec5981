"""A ViT-Ti from random weights at a small crop, which two CPU cores train in under an hour."""

_base_ = "./dinov2_b16_linear_camvid.py"

crop_size = (256, 256)
model = dict(
    backbone=dict(
        _delete_=True,
        type="TimmViT",
        model_name="vit_tiny_patch16_224",
        img_size=crop_size,
        pretrained=False,
    )
)
train_pipeline = [dict(type="LoadRandomCrop", crop_size=crop_size), dict(type="PackSegInputs")]
test_pipeline = [
    dict(type="LoadImage"),
    dict(type="ResizeToCover", size=crop_size),
    dict(type="LoadLabel"),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(num_workers=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=1, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

# Random weights need a larger rate than the 1e-5 that suits pretrained ones.
optim_wrapper = dict(optimizer=dict(lr=1e-3), paramwise_cfg=dict(_delete_=True, custom_keys=dict()))
train_cfg = dict(max_iters=800, val_interval=200, micro_batch=16)
default_hooks = dict(checkpoint=dict(interval=200))

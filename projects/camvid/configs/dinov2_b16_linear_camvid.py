"""The benchmark's default setting with DINOv2, on CamVid: inherits everything but the data."""

_base_ = "vfm_ss::vfm/dinov2_b16_linear_ade20k.py"

custom_imports = dict(imports=["vfm_ss", "camvid"], allow_failed_imports=False)

crop_size = (352, 352)
model = dict(backbone=dict(img_size=crop_size), decode_head=dict(num_classes=11))

train_pipeline = [dict(type="LoadRandomCrop", crop_size=crop_size), dict(type="PackSegInputs")]
test_pipeline = [
    dict(type="LoadImage"),
    dict(type="ResizeToCover", size=crop_size),
    dict(type="LoadLabel"),
    dict(type="PackSegInputs"),
]
dataset = dict(type="CamVidDataset", data_root="data/camvid")
train_dataloader = dict(
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="images/train", seg_map_path="annotations/train"),
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="images/val", seg_map_path="annotations/val"),
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader

train_cfg = dict(max_iters=4000, val_interval=500)
default_hooks = dict(checkpoint=dict(interval=500))

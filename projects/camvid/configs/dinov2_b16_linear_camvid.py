"""The benchmark's default setting with DINOv2, on CamVid: inherits everything but the data."""

_base_ = "vfm_ss::vfm/dinov2_b16_linear_ade20k.py"

custom_imports = dict(imports=["vfm_ss", "camvid"], allow_failed_imports=False)

model = dict(backbone=dict(img_size=(352, 352)), decode_head=dict(num_classes=11))

dataset = dict(type="CamVidDataset", data_root="data/camvid")
train_dataloader = dict(
    dataset=dict(
        **dataset, data_prefix=dict(img_path="images/train", seg_map_path="annotations/train")
    )
)
val_dataloader = dict(
    dataset=dict(**dataset, data_prefix=dict(img_path="images/val", seg_map_path="annotations/val"))
)
test_dataloader = val_dataloader

train_cfg = dict(max_iters=4000, val_interval=500)
default_hooks = dict(checkpoint=dict(interval=500))

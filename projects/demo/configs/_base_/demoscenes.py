"""The demo's painted scenes of 96x128 pixels: 8 classes, the label 0 ("other") ignored."""

_base_ = "../../../../configs/_base_/datasets/common.py"

crop_size = (96, 96)
num_classes = 8

# The scenes are painted under varying light, and their objects are small as they are.
train_pipeline = [
    dict(type="LoadRandomCrop", scale_range=(1.0, 1.5), distortion=None),
    dict(type="PackSegInputs"),
]
dataset = dict(type="DemoScenesDataset", data_root="data/demo_scenes")
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="images/training", seg_map_path="annotations/training"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
    ),
)
test_dataloader = val_dataloader

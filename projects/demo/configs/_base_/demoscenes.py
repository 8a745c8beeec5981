"""The demo's painted scenes of 96x128 pixels: 8 classes, the label 0 ("other") ignored."""

crop_size = (96, 96)
num_classes = 8

# The scenes are painted under varying light, and their objects are small as they are.
train_pipeline = [
    dict(type="LoadRandomCrop", crop_size=crop_size, scale_range=(1.0, 1.5), distortion=None),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImage"),
    dict(type="ResizeToCover", size=crop_size),
    dict(type="LoadLabel"),
    dict(type="PackSegInputs"),
]
dataset = dict(type="DemoScenesDataset", data_root="data/demo_scenes")
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    sampler=dict(type="PositionSampler"),
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="images/training", seg_map_path="annotations/training"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="MeanIoUMetric")
test_evaluator = val_evaluator

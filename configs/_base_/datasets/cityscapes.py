"""Cityscapes: 19 classes, from the published labelIds.

Read in place: `data_root` holds the two published archives or the folders in them.
"""

crop_size = (1024, 1024)
num_classes = 19

train_pipeline = [
    dict(type="LoadRandomCrop", crop_size=crop_size),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImage"),
    dict(type="ResizeToCover", size=crop_size),
    dict(type="LoadLabel"),
    dict(type="PackSegInputs"),
]

dataset = dict(type="RawCityscapesDataset", data_root="data/cityscapes")
train_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="PositionSampler"),
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="leftImg8bit/train", seg_map_path="gtFine/train"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="leftImg8bit/val", seg_map_path="gtFine/val"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type="MeanIoUMetric")
test_evaluator = val_evaluator

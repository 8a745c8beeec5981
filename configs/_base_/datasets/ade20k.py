"""ADE20K of the scene parsing challenge 2016: 150 classes, label 0 ("other") is ignored.

Read in place: `data_root` is the published archive or the folder in it.
"""

crop_size = (512, 512)
num_classes = 150

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

dataset = dict(type="RawADE20KDataset", data_root="data/ADEChallengeData2016.zip")
train_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="PositionSampler"),
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="images/training", seg_map_path="annotations/training"),
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
        data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type="MeanIoUMetric")
test_evaluator = val_evaluator

"""What all data sets share: pipelines, loaders, the metric.

The transforms take their size from the model, `model.backbone.img_size`.
"""

train_pipeline = [
    dict(type="LoadRandomCrop"),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImage"),
    dict(type="ResizeToCover"),
    dict(type="LoadLabel"),
    dict(type="PackSegInputs"),
]
# vfm-ss test --tta: mmseg's scales from 1.0 on (the network's input has one size, which a smaller
# image would not fill) and mirrored images; replace it in a config for others.
tta_pipeline = [
    dict(type="LoadImage"),
    dict(
        type="TestTimeAug",
        transforms=[
            [dict(type="ResizeToCover", scale=scale) for scale in (1.0, 1.25, 1.5, 1.75)],
            [dict(type="RandomFlip", prob=prob, direction="horizontal") for prob in (0.0, 1.0)],
            [dict(type="LoadLabel")],
            [dict(type="PackSegInputs")],
        ],
    ),
]

train_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="PositionSampler"),
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(test_mode=True, pipeline=test_pipeline),
)
test_dataloader = val_dataloader

val_evaluator = dict(type="MeanIoUMetric")
test_evaluator = val_evaluator

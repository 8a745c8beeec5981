"""PASCAL VOC 2012: 21 classes, the plain training set of 1,464 images.

Read in place: `data_root` is the published archive or VOCdevkit/VOC2012 in it.
"""

crop_size = (512, 512)
num_classes = 21

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

dataset = dict(
    type="RawVOC2012Dataset",
    data_root="data/VOCtrainval_11-May-2012.tar",
    data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass"),
)
train_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="PositionSampler"),
    dataset=dict(**dataset, ann_file="ImageSets/Segmentation/train.txt", pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        **dataset,
        ann_file="ImageSets/Segmentation/val.txt",
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type="MeanIoUMetric")
test_evaluator = val_evaluator

"""PASCAL VOC 2012: 21 classes, the plain training set of 1,464 images.

Read in place: `data_root` is the published archive or VOCdevkit/VOC2012 in it.
"""

_base_ = "./common.py"

crop_size = (512, 512)
num_classes = 21

dataset = dict(
    type="RawVOC2012Dataset",
    data_root="data/VOCtrainval_11-May-2012.tar",
    data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass"),
)
train_dataloader = dict(dataset=dict(**dataset, ann_file="ImageSets/Segmentation/train.txt"))
val_dataloader = dict(dataset=dict(**dataset, ann_file="ImageSets/Segmentation/val.txt"))
test_dataloader = val_dataloader

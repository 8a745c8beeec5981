"""Cityscapes: 19 classes, from the published labelIds.

Read in place: `data_root` holds the two published archives or the folders in them.
"""

_base_ = "./common.py"

crop_size = (1024, 1024)
num_classes = 19

dataset = dict(type="RawCityscapesDataset", data_root="data/cityscapes")
train_dataloader = dict(
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="leftImg8bit/train", seg_map_path="gtFine/train"),
    )
)
val_dataloader = dict(
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="leftImg8bit/val", seg_map_path="gtFine/val"),
    )
)
test_dataloader = val_dataloader

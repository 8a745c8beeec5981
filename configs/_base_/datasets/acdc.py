"""ACDC: fog, night, rain and snow, 19 classes as in Cityscapes.

Read in place: `data_root` holds the two published archives or the folders in them.
"""

_base_ = "./common.py"

crop_size = (1024, 1024)
num_classes = 19

dataset = dict(type="RawACDCDataset", data_root="data/acdc")
train_dataloader = dict(dataset=dict(**dataset, split="train"))
val_dataloader = dict(dataset=dict(**dataset, split="val"))
test_dataloader = val_dataloader

"""ADE20K of the scene parsing challenge 2016: 150 classes, label 0 ("other") is ignored.

Read in place: `data_root` is the published archive or the folder in it.
"""

_base_ = "./common.py"

crop_size = (512, 512)
num_classes = 150

dataset = dict(type="RawADE20KDataset", data_root="data/ADEChallengeData2016.zip")
train_dataloader = dict(
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="images/training", seg_map_path="annotations/training"),
    )
)
val_dataloader = dict(
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
    )
)
test_dataloader = val_dataloader

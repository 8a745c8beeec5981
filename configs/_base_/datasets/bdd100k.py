"""BDD100K: the 10,000 images with masks, 19 classes as in Cityscapes.

Read in place: `data_root` holds the published archives or the folders in them.
"""

_base_ = "./common.py"

crop_size = (512, 512)
num_classes = 19

dataset = dict(type="RawBDD100KDataset", data_root="data/bdd100k")
train_dataloader = dict(
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="images/10k/train", seg_map_path="labels/sem_seg/masks/train"),
    )
)
val_dataloader = dict(
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="images/10k/val", seg_map_path="labels/sem_seg/masks/val"),
    )
)
test_dataloader = val_dataloader

"""CamVid as a data file, for `vfm-ss sweep run --data`: no class of its own is needed."""

_base_ = "vfm_ss::_base_/datasets/common.py"

crop_size = (256, 256)
num_classes = 11
steps = 200

dataset = dict(
    type="FolderDataset",
    name="camvid",
    data_root="data/camvid",
    images="images",
    labels="annotations",
    classes=[
        "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car",
        "pedestrian", "bicyclist",
    ],
    ignore=[11],
)  # fmt: skip
train_dataloader = dict(dataset=dict(**dataset, split="train"))
val_dataloader = dict(dataset=dict(**dataset, split="val"))
test_dataloader = val_dataloader

"""Domain shift: train on all of GTA V, evaluate on the validation set of Cityscapes."""

_base_ = "./cityscapes.py"

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="GTADataset",
        data_root="data/gta",
        pipeline={{_base_.train_pipeline}},
    )
)

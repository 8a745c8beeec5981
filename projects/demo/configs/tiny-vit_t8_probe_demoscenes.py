_base_ = "./tiny-vit_t8_linear_demoscenes.py"

model = dict(backbone=dict(frozen=True))

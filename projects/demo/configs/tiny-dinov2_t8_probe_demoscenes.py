_base_ = "./tiny-dinov2_t8_linear_demoscenes.py"

model = dict(backbone=dict(frozen=True))

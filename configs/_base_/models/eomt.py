"""A VFM whose last blocks take EoMT's queries among their tokens, end to end.

The segmentor leaves the published number of blocks to the head: 3 of ViT-S and B, 4 of ViT-L.
"""

_base_ = "./linear.py"

# Its predictions are at full size: 4 windows of 150 classes at 512x512 are 0.6 GB.
model = dict(
    decode_head=dict(type="EoMTHead"),
    test_cfg=dict(window_batch=4),
)

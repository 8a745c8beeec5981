"""A VFM with the linear decoder, end to end: the default of the benchmark.

A leaf names the backbone. The segmentor takes mean, std, image size and feature width from it.
"""

model = dict(
    type="VFMEncoderDecoder",
    data_preprocessor=dict(
        type="PaddingSegDataPreProcessor", bgr_to_rgb=True, pad_val=0, seg_pad_val=255
    ),
    backbone=dict(arch="base", patch_size=16, pretrained=True),
    decode_head=dict(type="LinearHead"),
    train_cfg=dict(),
    test_cfg=dict(mode="slide"),
)

_base_ = "./_base_/linear.py"

model = dict(
    backbone=dict(
        type="SAM",
        embed_dim=128,
        depth=4,
        num_heads=4,
        window_size=4,
        global_attn_indexes=(3,),
    )
)
default_hooks = dict(record=dict(vfm="tiny-sam"))

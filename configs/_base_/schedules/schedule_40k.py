"""40k optimiser steps of 16 images: AdamW, poly decay, no warm-up, no clipping."""

# The encoder learns at a tenth of the decoder's rate. Every parameter is decayed.
optim_wrapper = dict(
    type="MixedPrecisionOptimWrapper",
    constructor="GroupedOptimWrapperConstructor",
    optimizer=dict(type="AdamW", lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(custom_keys={"backbone": dict(lr_mult=0.1)}),
)
param_scheduler = dict(type="FullPolyLR", power=0.9, eta_min=0.0, by_epoch=False)

# Iterations are optimiser steps. The micro-batch sets the memory and nothing else; auto takes the
# largest one that fits.
train_cfg = dict(
    type="OptimStepTrainLoop",
    max_iters=40000,
    val_interval=4000,
    effective_batch=16,
    micro_batch="auto",
)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

default_hooks = dict(
    runtime_info=dict(type="AsyncRuntimeInfoHook"),
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(
        type="AtomicCheckpointHook",
        by_epoch=False,
        interval=4000,
        max_keep_ckpts=2,
        save_best="mIoU",
    ),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    visualization=dict(type="PaintPredictionsHook"),
    image_size=dict(type="ImageSizeHook"),
    record=dict(type="RecordHook"),
    examples=dict(type="SaveExamplesHook"),
)

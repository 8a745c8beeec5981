#!/usr/bin/env bash
# The benchmark of README.md: 4 VFMs, 9 settings, seeds 0 and 1 (or: benchmark.sh SEED...), on CPU cores.
# Given again, it goes on where it was stopped. VFM_SS_JOBS runs share the cores (1).
set -euo pipefail

vfms=$(printf "projects/camvid/vfms/%s.py " dinov2-s last4 last8 random)
work_dir=work_dirs/camvid
# The same for all: 200 steps on 4 images; the encoder learns at a tenth of the rate.
options=(
    train_cfg.effective_batch=4 optim_wrapper.optimizer.lr=5e-4
    train_cfg.val_interval=100 default_hooks.checkpoint.interval=100
    train_dataloader.num_workers=1 val_dataloader.num_workers=1
)

sweep() {
    vfm-ss sweep run --vfms "$vfms" --data projects/camvid/data.py --seeds "$seed" --amp \
        --gpus-per-run 0 --jobs "${VFM_SS_JOBS:-1}" --work-dir "$work_dir" \
        "$@" --cfg-options "${options[@]}" ${img_size:+model.backbone.img_size=$img_size}
}

for seed in ${*:-0 1}; do
    sweep --decoders linear,probe
    sweep --fractions 1/4,1/16
    sweep --decoders mask2former,mask2former-probe
    sweep --patches 32
    img_size=224 sweep --patches 14 # as many tokens as 16x16 patches in 256 pixels
done
for seed in ${*:-0 1}; do
    sweep --patches 8
done

"""40k steps as DINOv3 trains its linear probe: AdamW, warm-up of 1,500 steps, cosine, fp32."""

_base_ = "./schedule_40k.py"

optim_wrapper = dict(precision="fp32", optimizer=dict(lr=1e-3, weight_decay=1e-3))
param_scheduler = dict(
    _delete_=True, type="WarmupOneCycleLR", warmup=1500, warmup_ratio=1e-6, by_epoch=False
)

# The short side becomes 0.5 to 2 times the crop's. Hue is drawn from the whole circle, which is
# torchvision's -0.5 to 0.5. What is smaller than the crop is padded with the mean colour.
recipe_train_pipeline = [
    dict(
        type="LoadRandomCrop",
        scale_relative_to="cover",
        max_class_share=0.75,
        distortion=dict(hue_delta=90),
        pad_value="mean",
    ),
    dict(type="PackSegInputs"),
]

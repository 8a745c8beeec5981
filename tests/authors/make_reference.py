"""Run the authors' code on `inputs.py` and write `reference.json`: not part of any test.

    git clone https://github.com/tue-mps/benchmark-vfm-ss CHECKOUT
    pip install lightning==2.2.1 timm==0.9.16 transformers==4.39.2 scipy matplotlib
    python tests/authors/make_reference.py CHECKOUT

Everything is in float64 on a CPU, where their code needs two things: masks of 0 and 1 in the type
of the points (they are fp16 there), and points from here in place of random ones.
"""

import importlib.machinery
import json
import sys
import types
from pathlib import Path

import inputs
import numpy as np
import torch

sys.path.insert(0, sys.argv[1])
wandb = types.ModuleType("wandb")
wandb.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
sys.modules["wandb"] = wandb

import lightning
import timm
import transformers
from models import encoder
from models.linear_decoder import LinearDecoder
from models.mask2former_decoder import Mask2formerDecoder
from timm.models.vision_transformer import VisionTransformer
from training.linear_semantic import LinearSemantic
from training.mask2former_semantic import Mask2formerSemantic

torch.Tensor.half = torch.Tensor.double
uniform = torch.rand


def tiny_vit(**_):
    vit = VisionTransformer(inputs.CROP, inputs.PATCH, num_classes=0, **inputs.VIT)
    vit.default_cfg = {"mean": inputs.MEAN, "std": inputs.STD}
    return vit


def build(head):
    size = inputs.CROP, inputs.CROP
    common = {"encoder_name": "", "num_classes": inputs.CLASSES, "img_size": size}
    task = {"num_metrics": 1, "num_classes": inputs.CLASSES, "ignore_idx": inputs.IGNORE}
    if head == "linear":
        model = LinearSemantic(LinearDecoder(**common), img_size=size, **task)
    else:
        d = inputs.DECODER
        network = Mask2formerDecoder(
            num_queries=d["queries"],
            num_attn_heads=d["heads"],
            num_blocks=d["layers"],
            embed_dim=d["channels"],
            **common,
        )
        model = Mask2formerSemantic(
            network,
            img_size=size,
            num_points=inputs.POINTS,
            oversample_ratio=inputs.OVERSAMPLE,
            **task,
        )
    model.double()
    for name, part in by_our_names(model, lambda parameter: parameter.data):
        part.copy_(torch.from_numpy(inputs.weight(name, tuple(part.shape))))
    return model


OURS = {
    "network.encoder.": "backbone.vit.",
    "network.head.": "decode_head.conv_seg.",
    "network.proj.": "decode_head.decoder.input_proj.",
    "network.q.": "decode_head.decoder.queries.",
    "network.q_pos_embed.": "decode_head.decoder.query_pos.",
    "network.q_norm.": "decode_head.decoder.norm.",
    "network.q_class.": "decode_head.decoder.class_layer.",
    "network.q_mlp.0.0.": "decode_head.decoder.mask_mlp.0.",
    "network.q_mlp.1.0.": "decode_head.decoder.mask_mlp.2.",
    "network.q_mlp.2.0.": "decode_head.decoder.mask_mlp.4.",
    "network.transformer_decoder.": "decode_head.decoder.layers.",
    "final_layer_norm": "ffn_norm",
    "attn.q_proj": "attn.query",
    "attn.k_proj": "attn.key",
    "attn.v_proj": "attn.value",
    "attn.out_proj": "attn.out",
}


def by_our_names(module, value):
    """Yield values of the parameters under the names that they have in this project."""
    for name, parameter in module.named_parameters():
        for theirs, ours in OURS.items():
            name = name.replace(theirs, ours)
        if "in_proj_" in name:
            parts = zip(("query", "key", "value"), value(parameter).chunk(3), strict=True)
            for part, tensor in parts:
                yield name.replace("in_proj_", f"{part}."), tensor
        else:
            yield name, value(parameter)


def sample(pixels, labels):
    classes = [k for k in np.unique(labels).tolist() if k != inputs.IGNORE]
    masks = torch.stack([torch.from_numpy(labels == k) for k in classes])
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    return image, {"masks": masks, "labels": torch.tensor(classes)}


class FixedPoints:
    """In place of torch.rand: image by image, prediction by prediction."""

    def __init__(self):
        self.image, self.prediction, self.row = -1, inputs.DECODER["layers"], 0

    def __call__(self, rows, count, _, device=None):
        if (rows, count) == (1, inputs.POINTS):
            self.prediction += 1
            if self.prediction > inputs.DECODER["layers"]:
                self.image, self.prediction, self.row = self.image + 1, 0, 0
            return torch.from_numpy(inputs.points(self.image, 0, 0, count))[None]
        kind = 1 if count > inputs.POINTS else 2
        drawn = [inputs.points(self.image, kind, self.row + k, count) for k in range(rows)]
        self.row += rows if kind == 2 else 0
        return torch.from_numpy(np.stack(drawn))


class Recorder(lightning.Callback):
    def __init__(self):
        self.losses, self.gradients = [], {}

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        self.losses.append(float(outputs["loss"].detach()) * inputs.BATCH)
        if len(self.losses) == inputs.STEPS * inputs.BATCH:
            trainer.should_stop = True

    # Of the last step.
    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.gradients = condense(module, lambda parameter: parameter.grad)


def condense(module, value):
    return {
        name: [float(f"{x:.12g}") for x in inputs.projections(name, part.numpy())]
        for name, part in by_our_names(module, value)
    }


def batches(items):
    return torch.utils.data.DataLoader(items, batch_size=1, collate_fn=lambda batch: batch[0])


def trainer(**kwargs):
    return lightning.Trainer(
        accelerator="cpu",
        devices=1,
        precision="64-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **kwargs,
    )


def train(head):
    model, recorder = build(head), Recorder()
    steps, batch = range(inputs.STEPS), range(inputs.BATCH)
    data = [sample(*inputs.crop(step, index)) for step in steps for index in batch]
    loader = batches([(image[None], [target]) for image, target in data])
    torch.rand = FixedPoints() if head == "mask2former" else uniform
    trainer(
        max_steps=inputs.SCHEDULE,
        max_epochs=-1,
        accumulate_grad_batches=inputs.BATCH,
        limit_val_batches=0,
        callbacks=[recorder],
    ).fit(model, loader)
    torch.rand = uniform
    losses = np.reshape(recorder.losses, (inputs.STEPS, inputs.BATCH)).mean(1).tolist()
    weights = condense(model, lambda parameter: parameter.detach())
    return {"losses": losses, "last_gradients": recorder.gradients, "weights": weights}


def evaluate(head):
    model = build(head)
    # Their step also draws the first batch; it is not what is compared.
    model.validation_step = lambda batch, batch_idx: model.eval_step(batch, 1, 0, "val")
    found = {}
    epoch_end = model.on_validation_epoch_end

    def keep():
        found["confusion"] = model.metrics[0].confmat.tolist()
        found["iou"] = model.metrics[0].compute().tolist()
        epoch_end()

    model.on_validation_epoch_end = keep
    data = [sample(*inputs.image(k, *size)) for k, size in enumerate(inputs.SIZES)]
    loader = batches([((image,), (target,)) for image, target in data])
    trainer().validate(model, loader, verbose=False)
    return found


if __name__ == "__main__":
    encoder.timm.create_model = tiny_vit
    packages = {p.__name__: p.__version__ for p in (torch, timm, transformers, lightning)}
    reference = {"versions": packages}
    for head in ("linear", "mask2former"):
        reference[head] = {"training": train(head), "evaluation": evaluate(head)}
    path = Path(__file__).with_name("reference.json")
    path.write_text(json.dumps(reference) + "\n", encoding="utf-8")

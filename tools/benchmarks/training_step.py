"""One optimiser step in parts, as `train.py` times it."""

import resource
import time
from contextlib import nullcontext
from pathlib import Path
from types import MethodType
from unittest.mock import patch

import torch
from common import DTYPES, rectangles
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.models import SegDataPreProcessor
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import vfm_ss  # noqa: F401
from vfm_ss.compat.runner import set_accumulation
from vfm_ss.engine.auto_micro_batch import CPU_PIXELS, Trial, largest_that_fits
from vfm_ss.engine.optim_wrapper import precision_of
from vfm_ss.models.backbones import sam
from vfm_ss.models.decode_heads import LinearHead

TARGETS = 10  # classes of an image


class Step:
    """A training step on random images.

    Args:
        side: One of the sides of `train.py`.
        args: Arguments of `train.py`.
    """

    def __init__(self, side: str, args):
        self.cuda = torch.cuda.is_available()
        self.device = torch.device("cuda" if self.cuda else "cpu")
        self.plain, self.images = side == "plain", args.images
        init_default_scope("mmseg")
        MMLogger.get_instance("mmengine", log_level="ERROR")  # not a line for each parameter
        torch.manual_seed(0)
        self.base_bytes = 0 if self.cuda else _status("VmRSS")
        cfg = Config.fromfile(args.config)
        cfg.model.backbone.pretrained = False
        if side == "probe":
            cfg.model.backbone.frozen = True
        if side == "mask2former":
            cfg.model.decode_head.update(type="SingleScaleMask2FormerHead")
        if not self.plain:
            cfg.model.backbone.update(with_cp=args.checkpointing, compile=args.compile)
        cfg.optim_wrapper.precision = args.precision
        if self.plain:
            self._make_plain(cfg)
        with patch.object(sam, "use_fused_rel_pos") if self.plain else nullcontext():
            self.model = MODELS.build(cfg.model).to(self.device).train()
        if self.plain:
            self._use_plain_parts(cfg)
        self.wrapper = build_optim_wrapper(self.model, cfg.optim_wrapper)
        self.data = self._make_images()
        self.micro_batch = 1 if self.plain else self._micro_batch(args.batch)
        set_accumulation(self.wrapper, self.images // self.micro_batch)
        self.steps = 0

    def _make_plain(self, cfg) -> None:
        cfg.optim_wrapper.constructor = "DefaultOptimWrapperConstructor"
        cfg.optim_wrapper.optimizer.update(fused=False, foreach=False)
        if cfg.model.decode_head.type == "LinearHead":
            cfg.model.decode_head.loss_decode = dict(type="CrossEntropyLoss", avg_non_ignore=True)

    def _use_plain_parts(self, cfg) -> None:
        options = dict(cfg.model.data_preprocessor)
        options.pop("type", None)
        backbone = self.model.backbone
        self.model.data_preprocessor = SegDataPreProcessor(
            mean=[255 * value for value in backbone.mean],
            std=[255 * value for value in backbone.std],
            size=backbone.img_size,
            **options,
        ).to(self.device)
        head = self.model.decode_head
        if isinstance(head, LinearHead):  # batches of one image: mmseg's mean is the per-image one
            head.loss_by_feat = MethodType(BaseDecodeHead.loss_by_feat, head)

    def _make_images(self) -> dict:
        """Random images, and labels of rectangles."""
        height, width = self.model.backbone.img_size
        images, samples = [], []
        for _ in range(self.images):
            images.append(torch.randint(0, 256, (3, height, width), dtype=torch.uint8))
            classes = torch.randperm(self.model.decode_head.num_classes)[:TARGETS]
            label = rectangles(classes, height, width)
            samples.append(SegDataSample(gt_sem_seg=PixelData(data=label)))
        if self.cuda:
            images = [image.pin_memory() for image in images]
        return {"inputs": images, "data_samples": samples}

    def _micro_batch(self, given: str) -> int:
        candidates = [n for n in range(1, self.images + 1) if self.images % n == 0]
        if given != "auto":
            if int(given) not in candidates:
                raise SystemExit(f"--batch {given} must divide --images {self.images}")
            return int(given)
        if self.cuda:
            trial = Trial(self.model, self.wrapper, self.data, self.device)
            chosen, _ = largest_that_fits(candidates, trial, trial.budget())
            trial.clean_up()
            return chosen
        pixels = self.data["inputs"][0][0].numel()
        return max((n for n in candidates if n * pixels <= CPU_PIXELS), default=1)

    def __call__(self) -> dict[str, float]:
        """Make a step; return the seconds of its parts."""
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        begin_step = getattr(self.model.decode_head, "begin_step", None)
        if begin_step is not None:
            begin_step(self.data["data_samples"], self.images // self.micro_batch, self.steps)
        self.marks: list[tuple[str, object]] = []
        self._mark("")
        for start in range(0, self.images, self.micro_batch):
            part = slice(start, start + self.micro_batch)
            samples = [sample.clone() for sample in self.data["data_samples"][part]]
            data = {"inputs": self.data["inputs"][part], "data_samples": samples}
            with self.wrapper.optim_context(self.model):
                data = self.model.data_preprocessor(data, True)
                self._mark("data")
                features = self.model.extract_feat(data["inputs"])
                self._mark("forward")
                losses = self.model.decode_head.loss(
                    features, data["data_samples"], self.model.train_cfg
                )
            loss, _ = self.model.parse_losses(losses)
            self._mark("loss")
            self.wrapper.backward(self.wrapper.scale_loss(loss))
            del features, losses, loss, data
            self._mark("backward")
        self.wrapper.step()
        self.wrapper.zero_grad()
        self._mark("optimiser")
        self.steps += 1
        return self._seconds()

    def _mark(self, part: str) -> None:
        # Events do not make the CPU wait for the GPU, as synchronising at each part would.
        if self.cuda:
            moment = torch.cuda.Event(enable_timing=True)
            moment.record()
        else:
            moment = time.perf_counter()
        self.marks.append((part, moment))

    def _seconds(self) -> dict[str, float]:
        if self.cuda:
            torch.cuda.synchronize()
        seconds: dict[str, float] = {}
        for (_, start), (part, end) in zip(self.marks, self.marks[1:], strict=False):
            passed = start.elapsed_time(end) / 1e3 if self.cuda else end - start
            seconds[part] = seconds.get(part, 0.0) + passed
        return seconds

    def peak_bytes(self) -> int:
        """Return the peak memory: of the last step on a GPU, of the process on a CPU."""
        if self.cuda:
            return torch.cuda.max_memory_allocated()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def report(self, report):
        """Fill in what does not change from step to step."""
        trained = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        weights = sum(p.numel() * p.element_size() for p in self.model.parameters())
        report.precision = precision_of(self.wrapper)
        report.state_bytes = weights + 3 * 4 * trained
        report.optimiser_bytes = 7 * 4 * trained  # four tensors read and three written
        report.matmul, report.copy = self._peaks(DTYPES[report.precision])
        report.flops = self._flops()
        report.kept_bytes = self._kept_bytes(2) - self._kept_bytes(1)
        return report

    def _kept_bytes(self, images: int) -> int:
        """Count what autograd keeps between forward and backward, weights in half precision too."""
        kept = {p.untyped_storage().data_ptr(): 0 for p in self.model.parameters()}

        def pack(tensor):
            storage = tensor.untyped_storage()
            kept.setdefault(storage.data_ptr(), storage.nbytes())
            return tensor

        begin_step = getattr(self.model.decode_head, "begin_step", None)
        samples = [self.data["data_samples"][0].clone() for _ in range(images)]
        if begin_step is not None:
            begin_step(samples, 1, 0)
        data = {"inputs": self.data["inputs"][:1] * images, "data_samples": samples}
        data = self.model.data_preprocessor(data, True)
        hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
        with hooks, self.wrapper.optim_context(self.model):
            self.model(**data, mode="loss")
        return sum(kept.values())

    def _peaks(self, dtype: torch.dtype) -> tuple[float, float]:
        side = 8192 if self.cuda else 1536
        x, w = (torch.randn(side, side, device=self.device, dtype=dtype) for _ in range(2))
        source = torch.empty(2**28 if self.cuda else 2**25, device=self.device)
        target = torch.empty_like(source)
        matmul = min(self._time(lambda: F.linear(x, w)) for _ in range(5))
        copy = min(self._time(lambda: target.copy_(source)) for _ in range(5))
        return 2 * side**3 / matmul, 2 * source.nbytes / copy

    def _time(self, work) -> float:
        if self.cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def _flops(self) -> float:
        """Count the FLOP of a step's matrix products; those of backward are twice forward's."""
        image = torch.zeros(1, 3, *self.model.backbone.img_size, device=self.device)
        counter = FlopCounterMode(display=False)
        # The fused kernels do not tell all their FLOP.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            features = self.model.backbone.forward(image)
            encoder = counter.get_total_flops()
            self.model.decode_head(features)
        head = counter.get_total_flops() - encoder
        encoder *= 1 if getattr(self.model.backbone, "frozen", False) else 3
        return self.images * (encoder + 3 * head)


def _status(key: str) -> int:
    """Return a size of this process in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    return 0

"""Rates of the published implementation on a device, one section a process: run with its requirements, from a checkout of it.

    python published.py CHECKOUT DEVICE SECTION BATCH SECONDS

Sections: encode-tf32 (as autoregressive/train/extract_codes_c2i.py runs it), encode-bf16 (under autocast), encode-compile (the same with
torch.compile), decode-tf32, sample-bf16 (as sample_c2i_ddp_cfg_search.py does) and sample-compile. Prints one JSON object.
"""

import json
import statistics
import sys
import time
from pathlib import Path

checkout, device, section, batch, seconds = sys.argv[1:]
sys.path.insert(0, checkout)

import torch

BATCH, SECONDS, CUDA = int(batch), float(seconds), device != "cpu"
WHAT, _, WAY = section.partition("-")
# The compiled sections compute in bfloat16 too.
PRECISION = "tf32" if WAY == "tf32" else "bf16"


def wait():
    if CUDA:
        torch.cuda.synchronize()


def tokenizer_body():
    from omegaconf import OmegaConf

    from modeling.restok import ResTok

    config = OmegaConf.load(Path(checkout) / "configs/training/ResTok/restok_l_128.yaml")
    # The frozen network that supervises training takes no part here, and would be downloaded.
    config.model.vq_model.use_vf = None
    config = {"model": OmegaConf.to_container(config.model), "dataset": {"preprocessing": {"crop_size": 256}}}
    tokenizer = ResTok(config).eval().requires_grad_(False).to(device)
    if WAY == "compile":
        tokenizer.pixel_encoder = torch.compile(tokenizer.pixel_encoder)
        tokenizer.encoder = torch.compile(tokenizer.encoder)
    images = torch.rand(BATCH, 3, 256, 256, device=device)
    codes = torch.randint(0, 8192, (BATCH, 128), device=device)

    def body():
        with torch.autocast(device, dtype=torch.bfloat16, enabled=PRECISION == "bf16"):
            if WHAT == "decode":
                return tokenizer.decode_tokens(codes).clamp(0, 1).mul(255).to(torch.uint8).cpu()
            return tokenizer.encode(images)[1]["min_encoding_indices"].cpu()

    return "restok-l-128", WHAT, body


def generator_body():
    from dataclasses import asdict

    from autoregressive.models.generate import generate
    from autoregressive.models.gpt_har import ModelArgs, Transformer

    sizes = ModelArgs(n_layer=24, n_head=16, dim=1024, vocab_size=8192, block_size=128, num_classes=1000)
    generator = Transformer(asdict(sizes))
    # It starts as zeros, from which nothing could be drawn but every code alike.
    torch.nn.init.normal_(generator.output.weight, std=0.02)
    generator = generator.to(device=device, dtype=torch.bfloat16 if CUDA else torch.float32).eval()
    if WAY == "compile":
        generator = torch.compile(generator, mode="reduce-overhead", fullgraph=True)
    classes = torch.arange(BATCH, device=device) % 1000

    def body():
        return generate(
            generator, classes, 128, cfg_scale=3.75, cfg_interval=-1, ar_token_num=4, temperature=1.0, top_k=0, top_p=0.95,
            sample_logits=True, cfg_schedule="step", cfg_schedule_kwargs={"window_start": 0.25, "num_steps": 9},
        ).cpu()

    return "gpt-l", "sample (paper)", body


@torch.no_grad()
def main():
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.manual_seed(0)
    network, what, body = generator_body() if WHAT == "sample" else tokenizer_body()
    began = time.perf_counter()
    body()
    wait()
    first = time.perf_counter() - began
    for _ in range(2 if CUDA else 0):
        body()
    wait()
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    times, began = [], time.perf_counter()
    while len(times) < (3 if CUDA else 1) or time.perf_counter() - began < SECONDS:
        call = time.perf_counter()
        body()
        wait()
        times.append(time.perf_counter() - call)
    median = statistics.median(times)
    print(json.dumps({
        "kind": "published", "what": what, "network": network, "precision": PRECISION, "batch": BATCH, "compiled": WAY == "compile",
        "value": BATCH / median, "unit": "images/s", "median_ms": 1e3 * median, "least_ms": 1e3 * min(times), "calls": len(times),
        "first_seconds": first, "torch": torch.__version__,
        "peak_allocated_bytes": torch.cuda.max_memory_allocated() if CUDA else None,
    }), flush=True)


main()

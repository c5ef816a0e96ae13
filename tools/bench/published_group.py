"""The other side of what a group of processes costs in training: run with the requirements of the published generator, from a checkout of it.

    python published_group.py CHECKOUT CONFIG BATCH STEPS REPEATS
    python -m torch.distributed.run --standalone --nproc-per-node 2 published_group.py CHECKOUT CONFIG BATCH STEPS REPEATS

Trains the generator of CONFIG in float32 with BATCH random rows a step (forward, backward, clip, AdamW) on one thread of the processor: in
DistributedDataParallel over Gloo where torchrun starts it, else without a group. The first process prints one JSON object with the mean seconds
of a step in each repeat.
"""

import json
import os
import sys
import time
from pathlib import Path

checkout, config, batch, steps, repeats = sys.argv[1:]
sys.path.insert(0, checkout)

import torch
import torch.distributed

from autoregressive.models.gpt_har import Transformer

from published_training import training_step

batch, steps, repeats = int(batch), int(steps), int(repeats)
torch.manual_seed(0)
torch.set_num_threads(1)
is_grouped = "RANK" in os.environ

config = json.loads(Path(config).read_text())
generator = Transformer(config)
generator.train()
if is_grouped:
    torch.distributed.init_process_group("gloo")
    generator = torch.nn.parallel.DistributedDataParallel(generator)
tokens = torch.randint(0, config["vocab_size"], (batch, config["block_size"]))
train = training_step(generator, tokens, torch.arange(batch) % config["num_classes"])

# The first steps pay for what is set up once.
for _ in range(2):
    train()
seconds = []
for _ in range(repeats):
    started = time.perf_counter()
    for _ in range(steps):
        train()
    seconds.append((time.perf_counter() - started) / steps)
if not is_grouped or torch.distributed.get_rank() == 0:
    print(json.dumps({"seconds": seconds}))
if is_grouped:
    torch.distributed.destroy_process_group()

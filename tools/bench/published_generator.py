"""The published generator's side of the benchmark: run with its requirements, from a checkout of it.

    python published_generator.py CHECKOUT FOLDER BATCH REPEATS THREADS

Makes a GPT-B with random weights, saves it in FOLDER under its published names, and times what users wait for, in float32 on the
processor: sampling BATCH images without guidance and with the paper's, and a training step (forward, backward, AdamW) of BATCH rows.
Prints one JSON object with the seconds of each repeat.
"""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

checkout, folder, batch, repeats, threads = sys.argv[1:]
sys.path.insert(0, checkout)

import torch
from safetensors.torch import save_file

from autoregressive.models.gpt_har import ModelArgs, Transformer

from published_training import training_step

batch, repeats = int(batch), int(repeats)
torch.manual_seed(0)
torch.set_num_threads(int(threads))

# GPT_B and parse_kwargs in autoregressive/models/gpt_har.py, and the dropouts of configs/training/generator.
arguments = ModelArgs(
    n_layer=12, n_head=12, dim=768, vocab_size=8192, block_size=128, num_classes=1000, resid_dropout_p=0.1, ffn_dropout_p=0.1,
    token_dropout_p=0.1,
)
generator = Transformer(asdict(arguments))
# The head starts at zero; a trained one does not.
torch.nn.init.normal_(generator.output.weight, std=0.02)

folder = Path(folder)
folder.mkdir(parents=True, exist_ok=True)
save_file({name: tensor.contiguous() for name, tensor in generator.state_dict().items()}, folder / "model.safetensors")
(folder / "config.json").write_text(json.dumps(asdict(arguments)))


def timed(what):
    """Seconds of each repeat; the first round pays for what is set up once."""
    what()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        what()
        seconds.append(time.perf_counter() - started)
    return seconds


def sample(guidance_scale):
    """As autoregressive/sample/sample_c2i_ddp_cfg_search.py calls it with the recipe of the README."""
    with torch.no_grad():
        generator.generate(
            condition=torch.arange(batch) % 1000,
            num_sample_steps=128,
            guidance_scale=guidance_scale,
            guidance_decay="step",
            cfg_schedule_kwargs={"window_start": 0.25, "num_steps": 9},
            top_p=0.95,
        )


generator.eval()
measured = {"unguided": timed(lambda: sample(1.0)), "paper": timed(lambda: sample(3.75))}

generator.train()
measured["train"] = timed(training_step(generator, torch.randint(0, 8192, (batch, 128)), torch.arange(batch) % 1000))
print(json.dumps(measured))

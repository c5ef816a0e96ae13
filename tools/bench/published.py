"""The published implementation's side of the benchmark: run with its requirements, from a checkout of it.

    python published.py CHECKOUT FOLDER PIXELS BATCH REPEATS THREADS RESULT

Makes ResTok-L with random weights, saves them in FOLDER under their published names, encodes PIXELS (u8, [views, 256, 256, 3]) as the
published extraction does, and writes to RESULT (.npz): `tokens` and `gap`, the distance between the best and the second-best code of
each token, both [views, 128]. Prints one JSON object with the seconds of each repeat.
"""

import json
import sys
import time
from pathlib import Path

checkout, folder, pixels, batch, repeats, threads, result = sys.argv[1:]
sys.path.insert(0, checkout)

import numpy
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from modeling.restok import ResTok

torch.manual_seed(0)
torch.set_num_threads(int(threads))

config = OmegaConf.load(Path(checkout) / "configs/training/ResTok/restok_l_128.yaml")
# The frozen network that supervises training takes no part in encoding, and would be downloaded.
config.model.vq_model.use_vf = None
config = {"model": OmegaConf.to_container(config.model), "dataset": {"preprocessing": {"crop_size": 256}}}
tokenizer = ResTok(config).eval().requires_grad_(False)
# Layers start at nothing but a small linear map; biases make the codes differ by position, as trained ones do.
for name, tensor in tokenizer.named_parameters():
    if name.startswith(("encoder.", "pixel_encoder.")) and name.endswith("bias"):
        tensor.normal_(std=0.5)

folder = Path(folder)
folder.mkdir(parents=True, exist_ok=True)
save_file({name: tensor.contiguous() for name, tensor in tokenizer.state_dict().items()}, folder / "model.safetensors")
(folder / "config.json").write_text(json.dumps(config))

views = numpy.fromfile(pixels, dtype=numpy.uint8).reshape(-1, 256, 256, 3)
batches = torch.from_numpy(views).permute(0, 3, 1, 2).contiguous().float().div(255).split(int(batch))


@torch.no_grad()
def encode(keep_gap):
    tokens, gaps = [], []
    for images in batches:
        found = tokenizer.encode(images)[1]
        tokens.append(found["min_encoding_indices"].reshape(len(images), -1))
        if keep_gap:
            distances = found["distances"].permute(0, 2, 3, 1).reshape(len(images), tokens[-1].shape[1], -1)
            nearest = distances.topk(2, dim=-1, largest=False).values
            gaps.append(nearest[..., 1] - nearest[..., 0])
    return torch.cat(tokens), torch.cat(gaps) if gaps else None


tokens, gap = encode(keep_gap=True)
seconds = []
for _ in range(int(repeats)):
    started = time.perf_counter()
    encode(keep_gap=False)
    seconds.append(time.perf_counter() - started)
numpy.savez(result, tokens=tokens.numpy().astype(numpy.int16), gap=gap.numpy())
print(json.dumps({"seconds": seconds, "torch": torch.__version__}))

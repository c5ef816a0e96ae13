"""A training step of the published generator, which several programs here time."""

import torch


def training_step(generator, tokens, classes):
    """A function that makes one: forward, backward, clip, AdamW, with the recipe of configs/training/generator."""
    optimizer = torch.optim.AdamW(generator.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05)

    def train():
        _, loss = generator(tokens, classes, targets=tokens)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(generator.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return train

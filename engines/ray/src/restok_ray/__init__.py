"""Jobs of restok on a Ray cluster. `docs/ray.md` says how to use it, `docs/worker-protocol.md` what it speaks with its workers."""

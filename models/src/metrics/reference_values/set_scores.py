"""Writes set_scores.json: what plain NumPy formulas and torch-fidelity 0.4.0 give for the sets that mod.rs draws.

    python set_scores.py > set_scores.json

Features and random numbers follow from formulas, which are written down here a second time. Nothing here is faster or more careful than it must be.
tests/python/test_evaluate.py takes the formulas from here; they need NumPy alone.
"""

import json

import numpy

MASK = (1 << 64) - 1
STEP = 0x9E3779B97F4A7C15
SEED = 7


def fnv1a(text):
    word = 0xCBF29CE484222325
    for byte in text.encode():
        word = (word ^ byte) * 0x100000001B3 & MASK
    return word


def mix(word):
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & MASK
    word = (word ^ word >> 27) * 0x94D049BB133111EB & MASK
    return word ^ word >> 31


def raw(name, count):
    """Numbers between -1 and 1."""
    word = numpy.uint64(fnv1a(name)) + numpy.arange(1, count + 1, dtype=numpy.uint64) * numpy.uint64(STEP)
    word = (word ^ word >> numpy.uint64(30)) * numpy.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ word >> numpy.uint64(27)) * numpy.uint64(0x94D049BB133111EB)
    word = word ^ word >> numpy.uint64(31)
    return (word >> numpy.uint64(40)).astype(float) / 2**24 * 2.0 - 1.0


def features(name, rows, dimensions, spread, shift):
    directions = 6
    latent = raw(f"{name}.rows", rows * directions).reshape(rows, directions)
    loads = raw("loads", directions * dimensions).reshape(directions, dimensions)
    sums = 0.1 * raw(f"{name}.noise", rows * dimensions).reshape(rows, dimensions) + shift
    for direction in range(directions):
        sums = sums + spread * latent[:, direction, None] * loads[direction]
    return sums.astype(numpy.float32)


class RandomStream:
    def __init__(self, seed, purpose, index):
        self.state = 0
        for word in (seed, fnv1a(purpose), index):
            self.state = mix((self.state + STEP & MASK) ^ word)

    def next(self):
        self.state = self.state + STEP & MASK
        return mix(self.state)

    def uniform(self):
        return (self.next() >> 11) / 2**53

    def below(self, limit):
        threshold = (1 << 64) % limit
        while True:
            product = self.next() * limit
            if product & MASK >= threshold:
                return product >> 64

    def choose(self, count, limit):
        numbers = list(range(limit))
        for place in range(count):
            other = place + self.below(limit - place)
            numbers[place], numbers[other] = numbers[other], numbers[place]
        return numbers[:count]

    def normals(self, count):
        numbers = []
        while len(numbers) < count:
            radius = numpy.sqrt(-2 * numpy.log(1 - self.uniform()))
            angle = 2 * numpy.pi * self.uniform()
            numbers += [radius * numpy.cos(angle), radius * numpy.sin(angle)]
        return numpy.array(numbers[:count])


def kernel_distance(reference, samples, subsets, size, seed, distance):
    """Mean and deviation of `distance` over random subsets."""
    found = []
    for subset in range(subsets):
        x = reference[RandomStream(seed, "kernel distance, reference", subset).choose(size, len(reference))]
        y = samples[RandomStream(seed, "kernel distance, samples", subset).choose(size, len(samples))]
        found.append(distance(x, y))
    return {"mean": numpy.mean(found), "deviation": numpy.std(found)}


def squared_discrepancy(x, y):
    """The squared maximum mean discrepancy, without bias."""
    kernel = lambda left, right: (left.astype(float) @ right.astype(float).T / left.shape[1] + 1) ** 3
    apart = lambda of: kernel(of, of)[~numpy.eye(len(of), dtype=bool)].mean()
    return apart(x) + apart(y) - 2 * kernel(x, y).mean()


def squared_discrepancy_of_fidelity(x, y):
    import torch_fidelity
    from torch_fidelity.metric_kid import kernel_mmd

    assert torch_fidelity.__version__ == "0.4.0", torch_fidelity.__version__
    options = {"kid_kernel": "poly", "kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": None, "kid_kernel_poly_coef0": 1}
    return float(kernel_mmd(x, y, **options))


def monge_distance(reference, samples, directions):
    rows = min(len(reference), len(samples))
    choose = lambda features: features if len(features) == rows else features[
        RandomStream(SEED, "Monge distance, images", 0).choose(rows, len(features))
    ]
    reference, samples = (choose(features).astype(float) for features in (reference, samples))
    sums = []
    for index in range(directions):
        direction = RandomStream(SEED, "Monge distance, direction", index).normals(reference.shape[1])
        direction /= numpy.linalg.norm(direction)
        sums.append(((numpy.sort(reference @ direction) - numpy.sort(samples @ direction)) ** 2).mean())
    return 3 * reference.shape[1] * numpy.mean(sums)


def distances(left, right):
    return ((left[:, None].astype(float) - right[None].astype(float)) ** 2).sum(axis=2)


def density_coverage(reference, samples, neighbours=5):
    radii = numpy.sort(distances(reference, reference), axis=1)[:, neighbours]
    inside = distances(reference, samples) < radii[:, None]
    return {"density": inside.sum() / (neighbours * len(samples)), "coverage": inside.any(axis=1).mean()}


def frechet(left, right):
    """The trace of the root of the product of both covariances, as the nuclear norm of the product of the centred vectors."""
    left, right = left.astype(float), right.astype(float)
    centred = [of - of.mean(axis=0) for of in (left, right)]
    scale = [len(of) - 1 for of in (left, right)]
    shared = numpy.linalg.norm(centred[0] @ centred[1].T, "nuc") / numpy.sqrt(scale[0] * scale[1])
    traces = sum((of**2).sum() / count for of, count in zip(centred, scale))
    return ((left.mean(axis=0) - right.mean(axis=0)) ** 2).sum() + traces - 2 * shared


def frechet_infinity(reference, samples, seed, sizes=15):
    points = []
    least = max(min(5000, len(samples) // 10), 2)
    for index in range(sizes):
        size = least + (len(samples) - least) * index // (sizes - 1)
        places = RandomStream(seed, "extrapolated Fréchet distance", index).choose(size, len(samples))
        points.append((size, frechet(reference, samples[places])))
    _, intercept = numpy.polyfit([1 / size for size, _ in points], [distance for _, distance in points], 1)
    return {"distance": intercept, "points": points}


def vendi(samples):
    directions = samples.astype(float) / numpy.linalg.norm(samples.astype(float), axis=1, keepdims=True)
    eigenvalues = numpy.linalg.svd(directions, compute_uv=False) ** 2 / len(samples)
    eigenvalues = eigenvalues[eigenvalues > 0]
    return numpy.exp(-(eigenvalues * numpy.log(eigenvalues)).sum())


def nearest(training, samples):
    between = distances(samples, training)
    places = between.argmin(axis=1)
    return {"places": places.tolist(), "distances": numpy.sqrt(between.min(axis=1)).tolist()}


def authenticity(training, samples):
    between = distances(samples, training)
    others = distances(training, training)
    numpy.fill_diagonal(others, numpy.inf)
    return 100 * (others.min(axis=1)[between.argmin(axis=1)] < between.min(axis=1)).mean()


def case(dimensions, rows, sampled):
    reference = features("reference", rows, dimensions, 1.0, 0.0)
    samples = features("samples", sampled, dimensions, 1.15, 0.05)
    return {
        "dimensions": dimensions,
        "rows": [rows, sampled],
        "kernel": {
            who: kernel_distance(reference, samples, 10, 60, SEED, distance)
            for who, distance in (("numpy", squared_discrepancy), ("fidelity", squared_discrepancy_of_fidelity))
        },
        "monge": monge_distance(reference, samples, 150),
        **density_coverage(reference, samples),
        "infinity": frechet_infinity(reference, samples, SEED),
        "vendi": vendi(samples),
        "authenticity": authenticity(reference, samples),
        "nearest": nearest(reference, samples[:20]),
    }


if __name__ == "__main__":
    print(json.dumps({"seed": SEED, "cases": [case(16, 150, 120), case(64, 90, 130), case(300, 80, 70)]}, indent=1))

"""How often intervals of 95 % hold the truth, and how wide they are beside what scores scatter by, over sets that are drawn anew.

    python interval_simulations.py

In plain NumPy, for what docs/evaluating.md says of intervals; takes some minutes. The Rust tests do the same with the program's own
intervals, in fewer settings.
"""

import numpy

from set_scores import distances


def recall_and_coverage(reference, samples, between):
    """Of distances among the images of either set, and between the sets."""
    ball = numpy.sort(reference, axis=1)[:, 5]
    sample_ball = numpy.sort(samples, axis=1)[:, 3]
    return (between <= sample_ball[None]).any(axis=1).mean(), (between < ball[:, None]).any(axis=1).mean()


def half_samples(dimensions, spread, images=160, sets=600, resamples=200):
    """Recall and coverage by halves of both sets."""
    random = numpy.random.default_rng(0)
    found = []
    for _ in range(sets):
        real, made = random.normal(size=(images, dimensions)), random.normal(size=(images, dimensions)) * spread
        among = distances(real, real), distances(made, made), distances(real, made)
        score = numpy.array(recall_and_coverage(*among))
        halves = []
        for _ in range(resamples):
            rows, columns = (random.permutation(images)[: images // 2] for _ in range(2))
            parts = among[0][numpy.ix_(rows, rows)], among[1][numpy.ix_(columns, columns)], among[2][numpy.ix_(rows, columns)]
            halves.append(recall_and_coverage(*parts))
        halves = numpy.array(halves) - numpy.mean(halves, axis=0)
        lower, upper = (score + numpy.quantile(halves, part, axis=0) for part in (0.025, 0.975))
        found.append((score, lower.clip(min=0), upper.clip(max=1), halves.std(axis=0)))
    scores, lower, upper, deviations = (numpy.array(of) for of in zip(*found))
    truth = scores.mean(axis=0)
    held = ((lower <= truth) & (truth <= upper)).mean(axis=0)
    width = deviations.mean(axis=0) / scores.std(axis=0)
    for place, name in enumerate(("recall", "coverage")):
        print(f"{name} {truth[place]:.2f}, {dimensions} features: held {100 * held[place]:.0f} %, width {width[place]:.2f}", flush=True)


def frechet(images, dimensions=64, sets=2000):
    """The Fréchet distance by each image's influence."""
    random = numpy.random.default_rng(0)
    variances = numpy.exp(-4 * numpy.arange(dimensions) / dimensions)
    root = numpy.sqrt(variances)
    scores, errors = [], []
    for _ in range(sets):
        features = 1 / numpy.sqrt(dimensions) + 1.1 * root * random.normal(size=(images, dimensions))
        mean = features.mean(axis=0)
        centred = features - mean
        covariance = centred.T @ centred / (images - 1)
        values, vectors = numpy.linalg.eigh(root[:, None] * covariance * root)
        kept = values > 1e-18 * values.max()
        values, vectors = values[kept], vectors[:, kept]
        scores.append(mean @ mean + covariance.trace() + variances.sum() - 2 * numpy.sqrt(values).sum())
        along = centred @ (root[:, None] * vectors * values**-0.25)
        influences = 2 * centred @ mean + (centred**2).sum(axis=1) - (along**2).sum(axis=1)
        errors.append(influences.std() / numpy.sqrt(images))
    print(f"FID, {images} images of {dimensions} features: width {numpy.mean(errors) / numpy.std(scores):.2f}", flush=True)


if __name__ == "__main__":
    for images in (64, 640, 3200):
        frechet(images)
    for dimensions, spread in ((2, 0.7), (2, 1.0), (6, 0.8), (16, 0.9)):
        half_samples(dimensions, spread)

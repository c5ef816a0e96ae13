"""The other side of the benchmark of FID: torch-fidelity, or the plain formulas in NumPy, over features in memory.

    python published_fid.py torch-fidelity|numpy SAMPLES REFERENCE REPEATS THREADS

SAMPLES and REFERENCE hold float32, [any number, 2048]. Prints one JSON object: seconds of the statistics of SAMPLES and of their
distance from those of REFERENCE, for each repeat, and the distance.
"""

import json
import os
import sys
import time

side, samples, reference, repeats, threads = sys.argv[1:]
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = threads

import numpy

DIMENSIONS = 2048


def plain_statistics(features):
    """The mean and covariance of the ADM evaluator."""
    return numpy.mean(features, axis=0), numpy.cov(features, rowvar=False)


def plain_distance(first, second):
    """Its formula, the trace of the matrix square root by eigenvalues: SciPy's square root takes longer still."""
    (mean_1, covariance_1), (mean_2, covariance_2) = first, second
    difference = mean_1 - mean_2
    eigenvalues = numpy.linalg.eigvals(covariance_1 @ covariance_2)
    root = numpy.sqrt(eigenvalues.astype(complex)).real.sum()
    return float(difference @ difference + numpy.trace(covariance_1) + numpy.trace(covariance_2) - 2 * root)


if side == "torch-fidelity":
    import torch
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    torch.set_num_threads(int(threads))
    statistics = lambda features: fid_features_to_statistics(torch.from_numpy(features))
    distance = lambda first, second: fid_statistics_to_metric(first, second, False)["frechet_inception_distance"]
else:
    statistics, distance = plain_statistics, plain_distance

samples, reference = (numpy.fromfile(file, dtype=numpy.float32).reshape(-1, DIMENSIONS) for file in (samples, reference))
of_reference = statistics(reference)
seconds = {"statistics": [], "distance": []}
for _ in range(int(repeats)):
    started = time.perf_counter()
    found = statistics(samples)
    seconds["statistics"].append(time.perf_counter() - started)
    started = time.perf_counter()
    fid = distance(found, of_reference)
    seconds["distance"].append(time.perf_counter() - started)
print(json.dumps({**seconds, "fid": fid}))

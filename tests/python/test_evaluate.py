"""Scores held to the plain formulas: features that the program committed, read by pyarrow, and NumPy's arithmetic over them."""

import json
import math
import subprocess
import sys

import duckdb
import numpy
import pyarrow.parquet
import pytest

from conftest import CHECKOUT, SAMPLES, SECONDS_TO_END, binary, restok

# The formulas that gave the figures of the Rust tests.
sys.path.append(str(CHECKOUT / "models" / "src" / "metrics" / "reference_values"))
import set_scores as formulas

CLOTHES = SAMPLES / "fashion-mnist"


@pytest.fixture(scope="session")
def inception(tmp_path_factory):
    """The Inception network with random weights."""
    file = tmp_path_factory.mktemp("inception") / "inception.safetensors"
    subprocess.run([binary().with_name("random-inception"), file], check=True, timeout=SECONDS_TO_END)
    return file


def generate(output, count, seed):
    restok(
        *("generate", "--generator", CLOTHES / "generator", "--tokenizer", CLOTHES / "tokenizer", "--output", output),
        *("--count", count, "--seed", seed, "--guidance-scale", 2, "--devices", "cpu", "--unit-size", 20, "--batch-size", 20),
    )


@pytest.fixture(scope="session")
def scored(tmp_path_factory, inception):
    """A set scored against a reference that another set is, in a folder with everything that was written."""
    root = tmp_path_factory.mktemp("scored")
    generate(root / "real", 60, 1)
    generate(root / "samples", 50, 2)
    common = ("--inception", inception, "--output", root / "evaluation", "--unit-size", 20, "--devices", "cpu")
    restok("evaluate", "--make-reference", root / "reference.npz", "--source", root / "real", *common)
    printed = restok(
        *("evaluate", "--source", root / "samples", "--reference", root / "reference.npz", "--format", "json"),
        *("--allow", "count,resize,order,reference", *common),
    )
    return root, json.loads(printed)[0]


def features(root, images):
    """Pool and spatial features of the set with that many images, in its order."""
    for folder in sorted((root / "evaluation" / "features").iterdir()):
        table = pyarrow.concat_tables([pyarrow.parquet.read_table(file) for file in sorted(folder.iterdir())])
        if table.num_rows == images:
            return (numpy.stack(table[name].combine_chunks().to_numpy(zero_copy_only=False)) for name in ("pool", "spatial"))
    raise AssertionError(f"no set of {images} images")


def frechet(first, second):
    """The formula of the ADM evaluator; the trace of the square root by the eigenvalues of the product."""
    difference = first.mean(axis=0, dtype=float) - second.mean(axis=0, dtype=float)
    covariances = [numpy.cov(features.astype(float), rowvar=False) for features in (first, second)]
    eigenvalues = numpy.linalg.eigvals(covariances[0] @ covariances[1])
    root = numpy.sqrt(eigenvalues.astype(complex)).real.sum()
    return difference @ difference + sum(numpy.trace(covariance) for covariance in covariances) - 2 * root


def inside(centres, queries, neighbours=3):
    """Share of queries within a ball around a centre that reaches to its third neighbour."""
    distances = lambda first, second: ((first[:, None] - second[None]) ** 2).sum(axis=2)
    radii = numpy.sort(distances(centres, centres), axis=1)[:, neighbours]
    return (distances(queries, centres) <= radii).any(axis=1).mean()


def test_distances_are_those_of_the_plain_formulas(scored):
    root, record = scored
    (real, real_spatial), (samples, samples_spatial) = features(root, 60), features(root, 50)
    assert real.shape == (60, 2048) and samples_spatial.shape == (50, 2023)
    scores = record["scores"]
    assert scores["fid"] == pytest.approx(frechet(samples, real), rel=1e-3)
    assert scores["sfid"] == pytest.approx(frechet(samples_spatial, real_spatial), rel=1e-3)
    real, samples = real.astype(float), samples.astype(float)
    # One image on the edge of a ball may fall to either side of it.
    assert scores["precision"] == pytest.approx(inside(real, samples), abs=1 / 50 + 1e-9)
    assert scores["recall"] == pytest.approx(inside(samples, real), abs=1 / 60 + 1e-9)


def test_the_score_is_that_of_the_plain_formula(scored, inception):
    root, record = scored
    samples, _ = features(root, 50)
    logits = samples @ weights(inception, "fc.weight").astype(numpy.float32).T
    logits = logits.astype(float)
    probabilities = numpy.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    divergence = (probabilities * (numpy.log(probabilities) - numpy.log(probabilities.mean(axis=0)))).sum(axis=1)
    assert record["scores"]["inception_score"] == pytest.approx(math.exp(divergence.mean()), rel=1e-4)


@pytest.fixture(scope="session")
def asked(scored, inception):
    """The same set with every score that may be asked for, and intervals."""
    root, _ = scored
    names = "fid,sfid,is,precision,recall,kid,mind,density,coverage,fid-infinity,vendi,authpct"
    printed = restok(
        *("evaluate", "--source", root / "samples", "--reference", root / "reference.npz", "--format", "json"),
        *("--scores", names, "--kid-subset-size", 20, "--kid-subsets", 30, "--confidence", 90, "--resamples", 200),
        *("--allow", "count,resize,order,reference", "--inception", inception, "--output", root / "evaluation"),
        *("--unit-size", 20, "--devices", "cpu"),
    )
    return root, json.loads(printed)[0]


def test_what_is_asked_for_is_that_of_the_plain_formulas(scored, asked):
    root, record = asked
    (real, _), (samples, _) = features(root, 60), features(root, 50)
    real, samples = real.astype(float), samples.astype(float)
    scores = record["scores"]
    for what in ("fid", "sfid", "inception_score", "precision", "recall"):
        assert scores[what] == scored[1]["scores"][what], what

    # One image on the edge of a ball may fall to either side of it.
    counted = formulas.density_coverage(real, samples)
    assert scores["density"] == pytest.approx(counted["density"], abs=1 / (5 * 50) + 1e-9)
    assert scores["coverage"] == pytest.approx(counted["coverage"], abs=1 / 60 + 1e-9)
    assert scores["authpct"] == pytest.approx(formulas.authenticity(real, samples), abs=2 + 1e-9)
    assert scores["vendi_score"] == pytest.approx(formulas.vendi(samples), rel=1e-5)

    kernel = formulas.kernel_distance(real, samples, 30, 20, seed=0, distance=formulas.squared_discrepancy)
    assert scores["kid"] == pytest.approx(kernel["mean"], rel=1e-6, abs=1e-9)
    assert scores["kid_deviation"] == pytest.approx(kernel["deviation"], rel=1e-6, abs=1e-9)
    # Subsets scatter around what all images at once give.
    whole = formulas.squared_discrepancy(real, samples)
    assert scores["kid"] == pytest.approx(whole, abs=5 * scores["kid_deviation"] / math.sqrt(30) + 1e-9)
    # Along a line, transport costs at least what moves the mean, and no more than any pairs of images are apart.
    shift = real.mean(axis=0) - samples.mean(axis=0)
    assert 0.5 * shift @ shift < scores["mind"] < 3 * formulas.distances(real, samples).mean()
    # Fifty images are too few for the line to end below FID, but it goes through the same points: distances of the same subsets, the
    # largest of which is the whole set. Its end is as exact as the distances are.
    line = formulas.frechet_infinity(real, samples, seed=0)
    distances = [distance for _, distance in line["points"]]
    assert scores["fid_infinity"] == pytest.approx(line["distance"], abs=1e-6 * max(distances))
    assert scores["fid"] == pytest.approx(distances[-1], rel=1e-6)


def test_intervals_are_around_their_scores_and_in_the_tables(asked):
    root, record = asked
    scores, intervals = record["scores"], record["scores"]["intervals"]
    assert intervals["confidence"] == 90
    for what in ("fid", "sfid", "inception_score", "kid", "precision", "recall", "density", "coverage"):
        assert intervals[what]["lower"] <= scores[what] <= intervals[what]["upper"], what
    settings = json.loads(record["score_settings"])
    assert settings["kid_subset_size"] == 20 and settings["resamples"] == 200 and "coverage" in settings["scores"]
    where = f"WHERE evaluation = '{record['evaluation']}'"
    columns = "fid_lower, fid_upper, confidence, kid, vendi_score"
    expected = (intervals["fid"]["lower"], intervals["fid"]["upper"], 90, scores["kid"], scores["vendi_score"])
    assert duckdb.sql(f"SELECT {columns} FROM '{root}/evaluation/scores/*.parquet' {where}").fetchall() == [expected]
    assert duckdb.sql(f"SELECT {columns} FROM read_csv('{root}/evaluation/scores.csv') {where}").fetchall() == [expected]


def weights(file, name):
    """A float16 tensor of a safetensors file."""
    with open(file, "rb") as opened:
        header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
        start, end = header[name]["data_offsets"]
        opened.seek(start, 1)
        return numpy.frombuffer(opened.read(end - start), dtype=numpy.float16).reshape(header[name]["shape"])


def test_numpy_opens_a_reference(scored):
    root, _ = scored
    archive = numpy.load(root / "reference.npz")
    pool, spatial = features(root, 60)
    assert archive["mu"] == pytest.approx(pool.mean(axis=0, dtype=float))
    assert archive["sigma"] == pytest.approx(numpy.cov(pool.astype(float), rowvar=False), abs=1e-9)
    assert archive["mu_s"].shape == (2023,) and archive["sigma_s"].shape == (2023, 2023)
    assert archive["features"].shape == (60, 2048)
    provenance = json.loads(archive["restok.json"])
    assert provenance["protocol"] == "gfid-adm" and provenance["images"] == 60


@pytest.mark.parametrize("names", [("mu", "sigma"), ("mu", "sigma", "mu_s", "sigma_s")])
def test_plain_archives_of_numpy_are_references(scored, inception, tmp_path, names):
    root, record = scored
    archive = numpy.load(root / "reference.npz")
    numpy.savez(tmp_path / "plain.npz", **{name: archive[name] for name in names})
    printed = restok(
        *("evaluate", "--source", root / "samples", "--reference", tmp_path / "plain.npz", "--format", "json"),
        *("--allow", "count,resize,order,reference", "--inception", inception, "--output", root / "evaluation"),
        *("--unit-size", 20, "--devices", "cpu"),
    )
    plain = json.loads(printed)[0]
    assert plain["scores"]["fid"] == pytest.approx(record["scores"]["fid"], rel=1e-6)
    assert (plain["scores"]["sfid"] is None) == ("mu_s" not in names)
    assert plain["scores"]["recall"] is None
    assert any(deviation.startswith("reference") for deviation in plain["deviations"])


def test_an_archive_of_images_is_a_reference_as_the_adm_evaluator_reads_it(scored, inception, tmp_path):
    root, record = scored
    images = numpy.load(root / "real" / "pictures" / "samples.npz")["arr_0"]
    archive = numpy.load(root / "reference.npz")
    statistics = {name: archive[name] for name in ("mu", "sigma", "mu_s", "sigma_s")}
    numpy.savez(tmp_path / "adm.npz", arr_0=images, **statistics)
    numpy.savez_compressed(tmp_path / "images.npz", arr_0=images)
    for name in ("adm.npz", "images.npz"):
        printed = restok(
            *("evaluate", "--source", root / "samples", "--reference", tmp_path / name, "--format", "json"),
            *("--allow", "count,resize,order,reference", "--inception", inception, "--output", root / "evaluation"),
            *("--unit-size", 20, "--devices", "cpu"),
        )
        scores = json.loads(printed)[0]["scores"]
        for what in ("fid", "sfid", "inception_score", "precision", "recall"):
            assert scores[what] == pytest.approx(record["scores"][what], rel=1e-4), (name, what)


def test_order_changes_no_distance_and_features_follow_it(scored, inception, tmp_path):
    root, record = scored
    images = numpy.load(root / "samples" / "pictures" / "samples.npz")["arr_0"]
    order = numpy.random.default_rng(0).permutation(len(images))
    numpy.savez(tmp_path / "mixed.npz", arr_0=images[order])
    # Batches as whole as those of the set itself, so that equal images have equal features.
    printed = restok(
        *("evaluate", "--source", tmp_path / "mixed.npz", "--reference", root / "reference.npz", "--format", "json"),
        *("--allow", "count,resize,order,reference", "--inception", inception, "--output", tmp_path / "evaluation"),
        *("--unit-size", 20, "--devices", "cpu"),
    )
    scores = json.loads(printed)[0]["scores"]
    for what in ("fid", "sfid", "precision", "recall"):
        assert scores[what] == pytest.approx(record["scores"][what], rel=1e-4), what
    pool, spatial = features(root, 50)
    mixed_pool, mixed_spatial = features(tmp_path, 50)
    assert mixed_pool == pytest.approx(pool[order], rel=1e-4, abs=1e-5)
    assert mixed_spatial == pytest.approx(spatial[order], rel=1e-4, abs=1e-5)


def test_scores_are_a_table(scored):
    root, record = scored
    found = duckdb.sql(
        f"SELECT fid, seed, protocol FROM '{root}/evaluation/scores/*.parquet' WHERE evaluation = '{record['evaluation']}'"
    ).fetchall()
    assert found == [(record["scores"]["fid"], 2, "gfid-adm")]
    table = duckdb.sql(f"SELECT fid FROM read_csv('{root}/evaluation/scores.csv') WHERE evaluation = '{record['evaluation']}'")
    assert table.fetchall() == [(record["scores"]["fid"],)]

"""`TokenLoader` and `TokenDataset` under torch: tensors, DataLoaders and their workers, states, ranks."""

import io
import pickle

import numpy as np
import pytest
import restok
from test_python_package import VIEWS, batches, images, rows_of, write_numbered
from torch_for_tests import import_torch

try:
    torch, _ = import_torch()
except ImportError as error:
    pytest.skip(str(error), allow_module_level=True)
from torch.utils.data import DataLoader


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """200 images of three views in seven files, whose codes say which image and view they are."""
    return write_numbered(tmp_path_factory.mktemp("numbered") / "output", 200)


def pass_over(loader):
    return [row for tokens, _ in loader for row in tokens[:, :2].tolist()]


def test_a_pass_is_an_epoch(numbered):
    loader = restok.TokenLoader(numbered, 16, seed=1)
    made = batches(numbered, batch_size=16, seed=1)
    assert loader.images == 200 and len(loader) == made.count() == 13 and loader.tokenizer.levels.sizes == (1, 3)
    assert [pass_over(loader) for _ in range(3)] == [rows_of(made, epoch) for epoch in range(3)]
    assert loader.epoch == 3
    loader.set_epoch(1)
    assert pass_over(loader) == rows_of(made, 1)


def test_batches_are_tensors(numbered):
    for dtype in (torch.int64, torch.int32, torch.int16):
        batch = next(iter(restok.TokenLoader(numbered, 16, dtype=dtype)))
        tokens, labels = batch
        assert batch.tokens is tokens and tokens.dtype == dtype and tokens.shape == (16, 4)
        assert labels.dtype == torch.int64 and (labels == tokens[:, 0] % 10).all()
    with pytest.raises(restok.SettingsError, match="dtype torch.float32, expected torch.int64"):
        restok.TokenLoader(numbered, 16, dtype=torch.float32)


def test_a_state_goes_on_with_the_batches_that_would_have_come(numbered):
    loader = restok.TokenLoader(numbered, 16, seed=1, memory_bytes=5000)
    coming = iter(loader)
    for _ in range(5):
        next(coming)
    file = io.BytesIO()
    torch.save(loader.state_dict(), file)
    expected = [pass_over(coming), pass_over(loader)]
    again = restok.TokenLoader(numbered, 16, seed=1, memory_bytes=5000)
    assert again.state_after(5) == loader_state(file)
    again.load_state_dict(loader_state(file))
    assert [pass_over(again), pass_over(again)] == expected
    # One that was interrupted goes on by itself.
    third = restok.TokenLoader(numbered, 16, seed=1, memory_bytes=5000)
    for number, _ in enumerate(third):
        if number == 4:
            break
    assert [pass_over(third), pass_over(third)] == expected


def loader_state(file):
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_a_state_of_another_order_is_refused(numbered):
    state = restok.TokenLoader(numbered, 16, seed=1).state_dict()
    for other in ({"seed": 2}, {"shuffle": False}, {"memory_bytes": 5000}, {"one_view": False}, {"filter": lambda table: np.ones(len(table), bool)}):
        with pytest.raises(restok.SettingsError, match="state of another order"):
            restok.TokenLoader(numbered, 16, **{"seed": 1, **other}).load_state_dict(state)
    # What the order does not follow from may change.
    restok.TokenLoader(numbered, 5, seed=1, rank=1, world_size=3, dtype=torch.int16, threads=1).load_state_dict(state)
    with pytest.raises(restok.SettingsError, match="state of version 2, expected 1"):
        restok.TokenLoader(numbered, 16, seed=1).load_state_dict({**state, "version": 2})


@pytest.mark.parametrize("context", [None, "fork", "spawn"])
def test_workers_change_nothing(numbered, context):
    loader = restok.TokenLoader(numbered, 16, seed=1)
    through = DataLoader(loader, batch_size=None, num_workers=2 if context else 0, multiprocessing_context=context)
    made = batches(numbered, batch_size=16, seed=1)
    assert len(through) == 13
    loader.set_epoch(2)
    assert pass_over(through) == rows_of(made, 2)
    loader.set_epoch(2)
    loader.load_state_dict(loader.state_after(4))
    assert pass_over(through) == rows_of(made, 2)[64:]


def test_workers_forked_while_a_file_is_read_read_it_themselves(numbered):
    loader = restok.TokenLoader(numbered, 16, seed=1)
    next(iter(loader))  # The next file is being read now.
    loader.set_epoch(0)
    through = DataLoader(loader, batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert pass_over(through) == rows_of(batches(numbered, batch_size=16, seed=1), 0)


def test_an_error_of_a_worker_names_the_file(tmp_path):
    output = write_numbered(tmp_path / "output", 60)
    loader = restok.TokenLoader(output, 16, seed=1)
    for path in output.rglob("*.parquet"):
        path.unlink()
    with pytest.raises(restok.OutputError, match="parquet: is missing, but the manifest names it"):
        pass_over(DataLoader(loader, batch_size=None, num_workers=1))


def test_ranks_are_detected(numbered, monkeypatch):
    assert (restok.TokenLoader(numbered, 8).rank, restok.TokenLoader(numbered, 8).world_size) == (0, 1)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    loader = restok.TokenLoader(numbered, 8, seed=1)
    assert (loader.rank, loader.world_size) == (1, 4) and len(loader) == 7
    assert pass_over(loader) == rows_of(batches(numbered, batch_size=8, seed=1, rank=1, world_size=4), 0)
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        assert (restok.TokenLoader(numbered, 8).rank, restok.TokenLoader(numbered, 8).world_size) == (0, 1)
    finally:
        torch.distributed.destroy_process_group()
    with pytest.raises(restok.SettingsError, match="expected both or neither"):
        restok.TokenLoader(numbered, 8, rank=1)
    with pytest.raises(restok.SettingsError, match="rank 4 of world size 4, expected 0 to 3"):
        restok.TokenLoader(numbered, 8, rank=4, world_size=4)


def test_a_dataset_has_its_images_by_number(numbered):
    dataset = restok.TokenDataset(numbered, seed=1)
    assert len(dataset) == 200 and dataset.tokenizer.codebook_size == 8192
    tokens, label = dataset[57]
    assert tokens.dtype == torch.int64 and tokens[0] == 57 and label == 7
    assert dataset[-1][0][0] == 199
    with pytest.raises(IndexError):
        dataset[200]
    through = DataLoader(dataset, batch_size=32, shuffle=True, generator=torch.Generator().manual_seed(1))
    seen = [(tokens, labels) for tokens, labels in through]
    assert sorted(image for tokens, _ in seen for image in tokens[:, 0].tolist()) == list(range(200))
    assert all((labels == tokens[:, 0] % 10).all() for tokens, labels in seen)


def test_a_dataset_draws_the_views_of_its_epoch(numbered):
    dataset = restok.TokenDataset(numbered, seed=1)
    for epoch in (0, 3):
        dataset.set_epoch(epoch)
        views = {image: view for image, view in (dataset[number][0][:2].tolist() for number in range(200))}
        assert views == dict(rows_of(batches(numbered, seed=1), epoch))
    every = restok.TokenDataset(numbered, one_view=False)
    assert len(every) == 200 * VIEWS and every[4][0][:2].tolist() == [1, 1]


def test_a_dataset_that_does_not_fit_says_so(numbered):
    with pytest.raises(restok.SettingsError, match="tokens of 9600 bytes, expected at most memory_bytes=9599"):
        restok.TokenDataset(numbered, memory_bytes=9599)
    assert len(restok.TokenDataset(numbered, memory_bytes=9600)) == 200


def test_workers_of_a_dataset_read_for_themselves(numbered):
    dataset = restok.TokenDataset(numbered)
    before = dataset[3][0].tolist()
    assert pickle.loads(pickle.dumps(dataset))[3][0].tolist() == before
    through = DataLoader(dataset, batch_size=20, num_workers=2, multiprocessing_context="spawn")
    assert images([row for tokens, _ in through for row in tokens[:, :2].tolist()]) == list(range(200))

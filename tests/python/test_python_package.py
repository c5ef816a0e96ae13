"""The Python package reads what the program writes: tables as they are, an order of training, a few images there and back."""

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys

import conftest
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as papq
import pytest
import restok
from conftest import CHECKOUT, LAYOUTS, SAMPLES, TOKENIZER
from engines import ENGINES, table_files
from restok.epoch_batches import EpochBatches, Position
from restok.epoch_order import EpochOrder
from restok.token_tables import TokenTables
from written_output import CODEBOOK_SIZE, write_output, write_table

CLOTHES = SAMPLES / "fashion-mnist"


@pytest.fixture
def copy(output, tmp_path):
    """A copy of the output of the program, to be damaged."""
    return shutil.copytree(output, tmp_path / "copy")


def part(output, number=0):
    return table_files(output, "tokens")[number]


# ------------------------------------------------------------------------------------------------ documents and tables


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_output_is_what_its_manifest_says(outputs, layout):
    output = restok.open(outputs[layout])
    manifest = json.loads((outputs[layout] / "_manifest.json").read_text())
    assert output.finished and output.plan == manifest["plan"] and output.split == "sample"
    assert (output.counts.listed, output.counts.written, output.counts.token_rows, output.views) == (38, 36, 36, 1)
    assert dict(output.counts.rejected) == {"truncated": 1, "unsupported": 1}
    assert output.levels.sizes == (1, 1, 2, 4, 8, 16, 32, 64) and output.levels.offsets == (0, 1, 2, 4, 8, 16, 32, 64, 128)
    assert output.tokenizer.codebook_size == 8192 and output.tokenizer.sha256 == manifest["settings"]["tokenizer"]["sha256"]
    assert output.settings["crop"] == "adm-center-256"
    assert [file.path for file in output.token_files] == [record["path"] for record in manifest["tokens"]]
    assert "36 images of 38 listed" in repr(output)


def test_an_output_names_its_classes_and_how_it_was_made(output):
    opened = restok.open(output)
    assert opened.class_names == ("blossom", "fractal", "hills", "mosaic", "spheres", "waves")
    provenance = opened.provenance()
    metadata = {key.decode(): value.decode() for key, value in papq.read_metadata(part(output)).metadata.items()}
    assert {f"restok.{key}": value for key, value in provenance.items()} == {
        key: value for key, value in metadata.items() if key.startswith("restok.")
    }
    assert opened.provenance(opened.token_files[1])["unit"] == "1"


def test_addresses_of_every_form_name_the_same(output, monkeypatch):
    monkeypatch.chdir(output.parent)
    plans = {restok.open(url).plan for url in (output, str(output), f"{output}/", output.name, output.as_uri())}
    assert len(plans) == 1


def test_the_tokens_table_is_a_dataset(output):
    dataset = restok.open(output).tokens()
    table = dataset.to_table()
    assert dict(zip(table["image_id"].to_pylist(), table["tokens"].to_pylist(), strict=True)) == ENGINES["pyarrow"].rows(output)
    assert set(table["split"].to_pylist()) == {"sample"}
    of_level = [restok.codes(batch, level=3) for batch in dataset.to_batches() if len(batch)]
    assert sum(map(len, of_level)) == 36 and of_level[0].shape[1] == 4
    some = dataset.to_table(columns=["image_id"], filter=(pc.field("label") == 2) & (pc.field("split") == "sample"))
    assert len(some) == 6 and all(key.startswith("hills") for key in some["image_id"].to_pylist())


def test_the_images_table_is_a_dataset(output):
    statuses = pc.value_counts(restok.open(output).images().to_table()["status"]).to_pylist()
    assert {entry["values"]: entry["counts"] for entry in statuses} == {"ok": 36, "truncated": 1, "unsupported": 1}


def test_codes_lie_where_arrow_has_them(output):
    opened = restok.open(output)
    batches = list(opened.batches())
    rows = [key for batch in batches for key in batch.column("image_id").to_pylist()]
    assert len(rows) == 36 and len(batches) == len(opened.token_files)
    for batch in batches:
        codes = restok.codes(batch)
        values = batch.column("tokens").values.buffers()[1]
        assert codes.shape == (len(batch), 128) and codes.dtype == np.int16 and not codes.flags.writeable
        assert values.address <= codes.ctypes.data and codes.ctypes.data + codes.nbytes <= values.address + values.size
        assert codes.tolist() == batch.column("tokens").to_pylist()
        # Of a slice, only its own.
        assert restok.codes(batch.slice(1, 2)).tolist() == codes[1:3].tolist()
        assert restok.codes(batch.slice(1, 2).column("tokens")).ctypes.data == codes[1:].ctypes.data


def test_a_level_is_a_part_of_every_row(output, levels):
    opened = restok.open(output)
    batch = next(opened.batches(["tokens"]))
    codes = restok.codes(batch)
    for level in levels:
        assert opened.levels[level.number] == slice(level.start, level.end)
        of_level = restok.codes(batch, level=level.number)
        assert np.shares_memory(of_level, codes) and (of_level == codes[:, level.start : level.end]).all()
        assert (restok.codes(batch.column("tokens"), level.number, opened.levels) == of_level).all()
    assert list(opened.levels) == [slice(level.start, level.end) for level in levels]
    assert opened.levels[:4] == slice(0, 8) and opened.levels[-1] == slice(64, 128)
    with pytest.raises(IndexError):
        opened.levels[8]
    with pytest.raises(restok.SettingsError, match="what their levels are"):
        restok.codes(batch.column("tokens"), level=0)


def test_a_column_that_is_no_matrix_is_refused(output):
    table = pa.Table.from_batches(list(restok.open(output).batches(["tokens"])))
    with pytest.raises(restok.SettingsError, match="3 pieces, expected one"):
        restok.codes(table)
    assert restok.codes(table.combine_chunks()).shape == (36, 128)
    with pytest.raises(restok.SettingsError, match="expected a list of a fixed size of int16"):
        restok.codes(pa.array([[1, 2], [3, 4]]))
    with pytest.raises(restok.OutputError, match="1 nulls, expected none"):
        restok.codes(pa.array([[1, 2], None], pa.list_(pa.int16(), 2)))


def test_only_files_that_the_manifest_names_are_read(copy):
    shutil.copy(part(copy), f"{part(copy)[:-8]}-stray.parquet")
    opened = restok.open(copy)
    assert opened.tokens().count_rows() == 36 and sum(len(batch) for batch in opened.batches()) == 36


def test_a_generated_set_is_read_too(tmp_path):
    conftest.restok(
        *("generate", "--generator", CLOTHES / "generator", "--tokenizer", CLOTHES / "tokenizer", "--output", tmp_path / "set"),
        *("--count", 6, "--unit-size", 3, "--batch-size", 3, "--pictures", "none", "--devices", "cpu", "--device-threads", 1),
    )
    output = restok.open(tmp_path / "set")
    assert output.token_columns == ("image_id", "view", "label", "tokens", "sample", "seed") and output.levels.tokens_per_image == 32
    assert output.tokens().to_table(columns=["sample"])["sample"].to_pylist() == list(range(6))
    assert len(rows_of(batches(output, filter=pc.field("sample") >= 4), epoch=0)) == 2


# ------------------------------------------------------------------------------------------ what is unfinished or damaged


def test_an_unfinished_output_is_read_on_request_by_its_markers(copy, output):
    (copy / "_SUCCESS").unlink()
    with pytest.raises(restok.OutputError, match=r"copy: is not finished \(_SUCCESS is missing\).*allow_unfinished=True"):
        restok.open(copy)
    (copy / "_manifest.json").unlink()
    whole, finished = restok.open(copy, allow_unfinished=True), restok.open(output)
    assert not whole.finished and finished.finished
    assert (whole.counts, whole.tokenizer, whole.settings, whole.token_files) == (
        *(finished.counts, finished.tokenizer, finished.settings, finished.token_files),
    )
    next((copy / "_state").rglob("00001.json")).unlink()
    rest = restok.open(copy, allow_unfinished=True)
    # The file is there, but what has no marker does not exist.
    assert len(rest.token_files) == 2 and rest.tokens().count_rows() == rest.counts.token_rows < 36
    for marker in (copy / "_state").rglob("*.json"):
        marker.unlink()
    with pytest.raises(restok.OutputError, match="no unit is complete"):
        restok.open(copy, allow_unfinished=True).tokens()


def remove(path):
    path.unlink()


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (remove, "is missing, but the manifest names it"),
        (cut, r"\d+ bytes, but the manifest says \d+"),
        (flip, "its SHA-256 is [0-9a-f]{64}, but the manifest says [0-9a-f]{64}"),
    ],
)
def test_a_damaged_table_is_named_with_what_was_found_and_expected(copy, damage, problem):
    path = part(copy, 1)
    damage(type(copy)(path))
    opened = restok.open(copy)
    with pytest.raises(restok.OutputError, match=f"{path}: {problem}"):
        list(opened.batches())
    if damage is not flip:
        with pytest.raises(restok.OutputError, match=path):
            opened.tokens()
    with pytest.raises(restok.OutputError, match=f"{path}: {problem}"):
        rows_of(batches(opened), epoch=0)


def test_a_file_of_other_columns_or_rows_is_refused(tmp_path):
    codes = np.zeros((4, 1, 3), np.int16)
    output = write_output(tmp_path / "output", codes, [0] * 4)
    manifest = json.loads((output / "_manifest.json").read_text())
    path = manifest["tokens"][0]["path"]
    table = papq.read_table(output / path, partitioning=None)

    def becomes(table):
        manifest["tokens"][0] = {**write_table(output, path, table), "rows": 4}
        (output / "_manifest.json").write_text(json.dumps(manifest))
        return restok.open(output)

    cases = [
        (table.drop_columns(["view"]), "column view: no such column, expected int8"),
        (table.set_column(3, "tokens", pa.array([[1, 2]] * 4, pa.list_(pa.int16(), 2))), r"column tokens: .*\[2\], expected a list of 3 int16"),
        (table.slice(1), "3 rows, but the manifest says 4"),
    ]
    for changed, problem in cases:
        opened = becomes(changed)
        with pytest.raises(restok.OutputError, match=f"{path}: {problem}"):
            list(opened.batches())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda manifest: manifest.pop("plan"), "_manifest.json: plan is missing, expected text"),
        (lambda manifest: manifest.update(plan="ab" * 32), "_manifest.json: speaks of plan abababab, but the output belongs to"),
        (lambda manifest: manifest.update(schema_version=2), "_manifest.json: schema version 2, this package reads up to 1"),
        (lambda manifest: manifest["books"].update(written=35), "_manifest.json: 38 images listed, but 35 written and 2 rejected"),
        (lambda manifest: manifest["tokens"].pop(), r"_manifest.json: files of \d+ rows, but its row counts say 36"),
        (lambda manifest: manifest["tokens"][0].update(rows="many"), "_manifest.json: tokens: rows is 'many', expected a number"),
        (lambda manifest: manifest["settings"]["tokenizer"].update(levels=[]), r"tokenizer: levels are \[\], expected sizes"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(copy, change, problem):
    manifest = json.loads((copy / "_manifest.json").read_text())
    change(manifest)
    (copy / "_manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(restok.OutputError, match=problem):
        restok.open(copy)


def test_what_is_no_output_is_said_to_be_none(tmp_path, copy):
    with pytest.raises(restok.OutputError, match=r"_plan/owner.json is missing, expected an output of restok"):
        restok.open(tmp_path / "nothing")
    (copy / "_manifest.json").write_text("{")
    with pytest.raises(restok.OutputError, match=r"_manifest.json: is damaged"):
        restok.open(copy)
    (copy / "_manifest.json").unlink()
    with pytest.raises(restok.OutputError, match=r"_manifest.json: is missing, but _SUCCESS is there"):
        restok.open(copy)
    next((copy / "_plan").glob("*.zst")).write_bytes(b"no plan")
    (copy / "_SUCCESS").unlink()
    with pytest.raises(restok.OutputError, match=r"jsonl.zst: cannot be read as a file of restok"):
        restok.open(copy, allow_unfinished=True)


# --------------------------------------------------------------------------------------------------------------- stores


def same_rows(opened, output):
    codes = {key: row for batch in opened.batches() for key, row in zip(batch.column("image_id").to_pylist(), restok.codes(batch).tolist(), strict=True)}
    assert codes == ENGINES["pyarrow"].rows(output)
    assert opened.tokens().count_rows() == 36


def test_a_file_system_can_be_given(output):
    same_rows(restok.open(output.name, filesystem=pafs.SubTreeFileSystem(str(output.parent), pafs.LocalFileSystem())), output)


def test_any_store_of_fsspec_is_read(output):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.put(str(output), "/restok-test", recursive=True)
    try:
        same_rows(restok.open("memory://restok-test"), output)
        same_rows(restok.open("restok-test", filesystem=memory), output)
        memory.rm("/restok-test/_SUCCESS")
        same_rows(restok.open("memory://restok-test", allow_unfinished=True), output)
    finally:
        memory.rm("/restok-test", recursive=True)


def test_an_output_behind_a_web_server_is_read(output):
    pytest.importorskip("aiohttp")
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(output.parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            port = server.stdout.readline().split()[5]
            opened = restok.open(f"http://127.0.0.1:{port}/{output.name}")
            assert "secret" not in restok.open(f"http://user:secret@127.0.0.1:{port}/{output.name}").url
            same_rows(opened, output)
        finally:
            server.terminate()


# ---------------------------------------------------------------------------------------------------- order and batches

VIEWS = 3


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """200 images of three views in seven files, whose codes say which image and view they are."""
    return write_numbered(tmp_path_factory.mktemp("numbered") / "output", 200)


def write_numbered(output, images, **options):
    codes = np.zeros((images, VIEWS, 4), np.int16)
    codes[:, :, 0] = np.arange(images)[:, None]
    codes[:, :, 1] = np.arange(VIEWS)
    return write_output(output, codes, [image % 10 for image in range(images)], images_of_a_file=30, **options)


def batches(source, *, batch_size=16, rank=0, world_size=1, seed=1, shuffle=True, drop_last=False, memory_bytes=1 << 30, **tables):
    defaults = {"filter": None, "one_view": True, "missing_label": None, "verify": True, "threads": 2}
    tables = TokenTables(source, **{**defaults, **tables})
    how = {"seed": seed, "shuffle": shuffle, "drop_last": drop_last, "memory_bytes": memory_bytes}
    return EpochBatches(tables, batch_size=batch_size, rank=rank, world_size=world_size, **how)


def rows_of(made, epoch, taken=0):
    """(image, view) of the rest of an epoch, in order. Labels are checked on the way."""
    rows = []
    for batch in made.batches(Position(epoch, taken)):
        rows += batch.codes[:, :2].tolist()
    return rows


def images(rows):
    return [image for image, _ in rows]


# Bytes of the codes and labels of one file, and of all of them.
FILE_BYTES = 30 * VIEWS * (4 * 2 + 8)


@pytest.mark.parametrize("memory_bytes", [1 << 30, 5 * FILE_BYTES, 1])
def test_an_epoch_is_every_image_once(numbered, memory_bytes):
    made = batches(numbered, memory_bytes=memory_bytes)
    epochs = [rows_of(made, epoch) for epoch in (0, 1, 2, 5)]
    for rows in epochs:
        assert sorted(images(rows)) == list(range(200)) and images(rows) != sorted(images(rows))
    assert len({str(images(rows)) for rows in epochs}) == 4
    assert rows_of(batches(numbered, memory_bytes=memory_bytes, threads=1), 5) == epochs[3]
    assert rows_of(batches(numbered, memory_bytes=memory_bytes, seed=2), 5) != epochs[3]


def test_labels_go_with_their_images(numbered):
    for batch in batches(numbered, memory_bytes=4 * FILE_BYTES).batches(Position(1, 0)):
        assert (batch.labels == batch.codes[:, 0] % 10).all() and batch.labels.dtype == np.int64


ORDER_OF_FILES = (0, 2, 4, 1, 5, 3)
ORDER_OF_IMAGES = [3, 24, 12, 28, 19, 0]
VIEWS_OF_IMAGES = [6, 0, 4, 9, 6, 9, 0, 5]


def test_the_order_is_the_same_in_every_version():
    """States that were saved resume on these numbers: a change here breaks them."""
    order = EpochOrder.of(7, [(5, 1)] * 6, memory_bytes=100, shuffle=True)
    windows = list(order.windows(3))
    assert [window.files for window in windows] == [ORDER_OF_FILES]
    assert order.order_in(windows[0]).tolist()[:6] == ORDER_OF_IMAGES
    assert order.views_of(3, 2, np.full(8, 10)).tolist() == VIEWS_OF_IMAGES


def test_views_follow_from_seed_epoch_and_image_alone(numbered):
    def views(epoch, **how):
        return dict(rows_of(batches(numbered, **how), epoch))

    for epoch in (0, 4):
        assert views(epoch) == views(epoch, memory_bytes=1) == views(epoch, shuffle=False)
        assert views(epoch) != views(epoch + 1) and views(epoch) != views(epoch, seed=2)
    made = batches(numbered, shuffle=False)
    drawn = np.array([[view for _, view in rows_of(made, epoch)] for epoch in range(60)])
    # Each view of three has 4,000 of 12,000 draws; five standard deviations of a binomial count.
    assert all(abs(count - 4000) < 260 for count in np.bincount(drawn.ravel(), minlength=VIEWS))
    # And each image comes by all of them: fewer than one in 10^8 images would not, in 60 epochs.
    assert all(len(set(of_image)) == VIEWS for of_image in drawn.T)


def test_every_view_can_be_an_image_of_its_own(numbered):
    rows = rows_of(batches(numbered, one_view=False), 0)
    assert sorted(map(tuple, rows)) == [(image, view) for image in range(200) for view in range(VIEWS)]


def test_without_a_shuffle_the_order_is_that_of_the_tables(numbered):
    assert images(rows_of(batches(numbered, shuffle=False, memory_bytes=1), 3)) == list(range(200))


def test_windows_grow_in_the_first_epoch_and_hold_what_fits_later():
    def windows(memory_bytes, epoch):
        return [len(window.files) for window in EpochOrder.of(7, [(10, 100)] * 20, memory_bytes, True).windows(epoch)]

    assert windows(2000, 0) == [1, 2, 4, 8, 5] and windows(2000, 1) == [20]
    # One byte less, and half of it is for the window that is read meanwhile.
    assert windows(1999, 1) == [9, 9, 2] and windows(1999, 0) == [1, 2, 4, 8, 5]
    assert windows(1, 3) == [1] * 20


def test_the_first_batch_waits_for_one_file(numbered, tmp_path):
    """All the others are gone: whoever reads one of them finds that out."""
    copy = shutil.copytree(numbered, tmp_path / "copy")
    made = batches(copy)
    first = next(EpochOrder.of(1, [(30, 1)] * 6 + [(20, 1)], 1 << 30, True).windows(0)).files[0]
    for number, path in enumerate(table_files(copy, "tokens")):
        if number != first:
            os.unlink(path)
    coming = made.batches(Position(0, 0))
    assert set(next(coming).codes[:, 0] // 30) == {first}
    with pytest.raises(restok.OutputError, match="is missing, but the manifest names it"):
        list(coming)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_the_ranks_together_are_the_epoch(numbered, world_size, drop_last):
    of_ranks = []
    for rank in range(world_size):
        made = batches(numbered, rank=rank, world_size=world_size, drop_last=drop_last)
        of_ranks.append([batch.codes[:, 0].tolist() for batch in made.batches(Position(2, 0))])
        assert len(of_ranks[-1]) == made.count()
    alone = images(rows_of(batches(numbered), 2))
    # Step by step, they go through the order of one process.
    together = [image for step in range(max(map(len, of_ranks))) for rank in of_ranks for image in (rank[step] if step < len(rank) else [])]
    whole = 200 // (16 * world_size) * 16 * world_size
    assert together == (alone[:whole] if drop_last else alone)
    assert len({len(rank) for rank in of_ranks}) == 1
    sizes = [len(rank[-1]) for rank in of_ranks]
    assert max(sizes) - min(sizes) <= 1 and (not drop_last or set(sizes) == {16})


def test_fewer_images_than_ranks_go_to_the_first_of_them(tmp_path):
    output = write_numbered(tmp_path / "output", 9)
    counts = [[len(batch.labels) for batch in batches(output, batch_size=2, rank=rank, world_size=4).batches(Position(0, 0))] for rank in range(4)]
    assert counts == [[2, 1], [2], [2], [2]]


@pytest.mark.parametrize("workers", [2, 3, 5])
def test_workers_in_turn_give_the_order_of_one_process(numbered, workers):
    made = batches(numbered)
    alone = [batch.codes.tolist() for batch in made.batches(Position(1, 32))]
    taken = [list(made.batches(Position(1, 32), worker, workers)) for worker in range(workers)]
    assert [taken[number % workers][number // workers].codes.tolist() for number in range(len(alone))] == alone
    # What a worker says of its place is where it goes on itself, among as many of them.
    for worker in range(workers):
        first, *rest = taken[worker]
        again = made.batches(first.next, worker, workers) if first.next.epoch == 1 else []
        assert [batch.codes.tolist() for batch in again] == [batch.codes.tolist() for batch in rest]


@pytest.mark.parametrize("memory_bytes", [1 << 30, 4 * FILE_BYTES])
def test_an_order_goes_on_where_it_was_left(numbered, memory_bytes):
    def endless(made, position):
        while True:
            yield from made.batches(position)
            position = Position(position.epoch + 1, 0)

    made = batches(numbered, memory_bytes=memory_bytes)
    coming = endless(made, Position(0, 0))
    seen = [next(coming) for _ in range(30)]
    for number in (0, 5, 11, 12, 13, 20):
        again = endless(batches(numbered, memory_bytes=memory_bytes), seen[number].next)
        assert [next(again).codes.tolist() for _ in range(5)] == [batch.codes.tolist() for batch in seen[number + 1 : number + 6]]


def test_another_number_of_ranks_goes_on_with_the_images_that_are_left(numbered):
    made = batches(numbered, rank=1, world_size=2)
    second = list(made.batches(Position(3, 0)))[1]
    assert second.next == Position(3, 64)
    rest = [image for rank in range(5) for image in images(rows_of(batches(numbered, batch_size=9, rank=rank, world_size=5), 3, taken=64))]
    assert sorted(rest) == sorted(images(rows_of(batches(numbered), 3))[64:])


def test_a_position_at_the_end_of_an_epoch_is_the_next_one(numbered):
    assert batches(numbered, batch_size=50).after(Position(4, 0), 4) == Position(5, 0)
    assert batches(numbered, batch_size=60).after(Position(4, 0), 3) == Position(4, 180)
    assert batches(numbered, batch_size=60, drop_last=True).after(Position(4, 0), 3) == Position(5, 0)


def test_a_filter_takes_rows(numbered):
    rows = rows_of(batches(numbered, filter=(pc.field("label") < 3) & (pc.field("view") != 1)), 0)
    assert sorted(images(rows)) == [image for image in range(200) if image % 10 < 3] and {view for _, view in rows} == {0, 2}

    def odd(table):
        assert table.column_names == ["image_id", "view", "label", "split"]
        return np.array([int(key[1:]) % 2 == 1 for key in table["image_id"].to_pylist()])

    assert sorted(images(rows_of(batches(numbered, filter=odd, memory_bytes=1), 0))) == list(range(1, 200, 2))
    some = batches(numbered, filter=lambda table: pc.equal(table["image_id"], "n00000007"), one_view=False)
    assert sorted(rows_of(some, 0)) == [[7, 0], [7, 1], [7, 2]]
    assert len({batches(numbered, filter=how).digest for how in (None, odd, pc.field("view") == 0, pc.field("view") == 1)}) == 4
    with pytest.raises(restok.OutputError, match="no row that the filter keeps has tokens"):
        batches(numbered, filter=pc.field("label") > 10)
    with pytest.raises(restok.SettingsError, match="the filter gave int64 of shape .*, expected a mask of 90 rows"):
        batches(numbered, filter=lambda table: np.zeros(3, np.int64))


def test_several_outputs_are_one_set(numbered, tmp_path):
    other = write_numbered(tmp_path / "other", 45, plan="ab" * 32)
    made = batches([numbered, restok.open(other)])
    assert sorted(images(rows_of(made, 0))) == sorted([*range(200), *range(45)])
    with pytest.raises(restok.SettingsError, match=r"are tables of one plan \(01234567\): each image would count twice"):
        batches([numbered, numbered])
    third = write_numbered(tmp_path / "third", 45, plan="cd" * 32, tokenizer="12" * 32)
    with pytest.raises(restok.SettingsError, match="tokens of two tokenizers do not mix"):
        batches([numbered, third])


def test_what_is_no_label_code_or_view_is_named(tmp_path):
    codes = np.zeros((4, 2, 3), np.int16)
    output = write_output(tmp_path / "unlabelled", codes, [0, None, 2, None])
    with pytest.raises(restok.OutputError, match=r"image 'n00000001' has no label: expected one, or `missing_label="):
        rows_of(batches(output), 0)
    labels = next(batches(output, missing_label=-100, shuffle=False).batches(Position(0, 0))).labels
    assert labels.tolist() == [0, -100, 2, -100]
    assert len(rows_of(batches(output, filter=pc.field("label").is_valid()), 0)) == 2
    for code in (-1, CODEBOOK_SIZE):
        codes[2, 1, 1] = code
        output = write_output(tmp_path / f"code {code}", codes, [0] * 4)
        with pytest.raises(restok.OutputError, match=rf"parquet: code {code}, expected 0 to 8191"):
            rows_of(batches(output), 0)


def test_views_that_do_not_follow_one_another_are_refused(tmp_path):
    output = write_output(tmp_path / "output", np.zeros((4, 2, 3), np.int16), [0] * 4)
    manifest = json.loads((output / "_manifest.json").read_text())
    path = manifest["tokens"][0]["path"]
    table = papq.read_table(output / path, partitioning=None)
    for order in ([1, 0, 2, 3, 4, 5, 6, 7], [0, 3, 2, 1, 4, 5, 6, 7]):
        manifest["tokens"] = [write_table(output, path, table.take(order))]
        (output / "_manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(restok.OutputError, match=f"{path}: views are not in order, expected views 0 to 1 of each image"):
            rows_of(batches(output), 0)


def test_settings_that_cannot_be_are_refused(numbered):
    for wrong in ({"batch_size": 0}, {"seed": -1}, {"seed": 2**64}, {"rank": 2, "world_size": 2}):
        with pytest.raises(restok.SettingsError, match="expected"):
            batches(numbered, **wrong)
    assert len(rows_of(batches(numbered, seed=2**64 - 1), 2**40)) == 200


def test_batches_can_be_sent_to_another_process_without_their_rows(tmp_path):
    made = batches(write_output(tmp_path / "output", np.zeros((5000, 1, 64), np.int16), [0] * 5000))
    before = rows_of(made, 0)
    sent = pickle.dumps(made)
    assert len(sent) < 200_000
    assert rows_of(pickle.loads(sent), 0) == before


def test_errors_cross_processes():
    for kind in (restok.OutputError, restok.SettingsError, restok.ProgramError):
        assert str(pickle.loads(pickle.dumps(kind("what was found")))) == "what was found"


# ----------------------------------------------------------------------------------------------------------- the program


@pytest.fixture(autouse=True)
def program(monkeypatch):
    monkeypatch.setenv("RESTOK_BINARY", str(conftest.binary()))


@pytest.fixture(scope="module")
def clothes():
    return sorted((CLOTHES / "images").rglob("*.png"))


def test_codes_of_images_are_those_of_the_table(output):
    paths = [next((SAMPLES / "folder").rglob(f"{key}.*")) for key in ("blossom_01", "hills_02", "waves_03")]
    encoded = restok.encode(paths, tokenizer=TOKENIZER, devices="cpu", batch_size=8)
    rows = ENGINES["pyarrow"].rows(output)
    assert encoded.codes.tolist() == [rows[path.stem] for path in paths]
    assert encoded.levels.tokens_per_image == 128 and encoded.output.settings["crop"] == "adm-center-256"


def test_images_of_every_form_have_the_same_codes(clothes):
    import PIL.Image

    image = PIL.Image.open(clothes[0])
    array = np.asarray(image.convert("RGB"))
    forms = [clothes[0], str(clothes[0]), clothes[0].read_bytes(), image, array, array[:, :, 0], b"no image", image.convert("CMYK")]
    encoded = restok.encode(forms, tokenizer=CLOTHES / "tokenizer", devices="cpu")
    assert encoded.positions == [0, 1, 2, 3, 4, 5, 7] and len(encoded) == 7
    assert len({tuple(row) for row in encoded.codes.tolist()}) == 1
    assert [(reject.position, reject.reason) for reject in encoded.rejects] == [(6, "unsupported")] and "no image" in encoded.rejects[0].error
    none = restok.encode([b"no image", b""], tokenizer=CLOTHES / "tokenizer", devices="cpu")
    assert none.codes.shape == (0, 32) and none.codes_of_views.shape == (0, 1, 32) and [reject.reason for reject in none.rejects] == ["unsupported", "empty"]
    with pytest.raises(restok.SettingsError, match="an array of float32"):
        restok.encode([array.astype(np.float32)], tokenizer=CLOTHES / "tokenizer")


def test_views_are_encoded_too(clothes):
    encoded = restok.encode(clothes[:3], tokenizer=CLOTHES / "tokenizer", crop="adm-center-32-flip", devices="cpu")
    assert encoded.codes_of_views.shape == (3, 2, 32) and encoded.codes.tolist() == encoded.codes_of_views[:, 0].tolist()
    assert encoded.codes_of_views[0, 0].tolist() != encoded.codes_of_views[0, 1].tolist()


def test_images_come_back(clothes):
    encoded = restok.encode([*clothes, b"no image"], tokenizer=CLOTHES / "tokenizer", devices="cpu")
    pictures = restok.decode(encoded, tokenizer=CLOTHES / "tokenizer", device="cpu")
    assert [picture.size for picture in pictures] == [(32, 32)] * 10
    originals = [np.asarray(cropped(path), float) for path in clothes]
    errors = [np.abs(np.asarray(picture, float) - original).mean() for picture, original in zip(pictures, originals, strict=True)]
    # The nearest original is its own.
    for picture, error in zip(pictures, errors, strict=True):
        assert error == min(np.abs(np.asarray(picture, float) - original).mean() for original in originals)
    coarse = restok.decode(encoded, encoded.image_ids[3:4], tokenizer=CLOTHES / "tokenizer", keep=1, device="cpu")
    assert len(coarse) == 1 and coarse[0].tobytes() != pictures[3].tobytes()


def cropped(path):
    """An original, as the crop shows it to the tokenizer: 28 pixels and a border."""
    import PIL.Image

    return PIL.Image.open(path).convert("RGB").resize((32, 32), PIL.Image.Resampling.BICUBIC)


def test_rows_of_an_output_are_decoded_as_the_program_does(output, tmp_path):
    keys = ["waves_03", "blossom_01"]
    pictures = restok.decode(output, keys, tokenizer=TOKENIZER, device="cpu", keep=4)
    conftest.restok(
        *("reconstruct", "--tokens", output, "--tokenizer", TOKENIZER, "--to", tmp_path, "--image-id", ",".join(keys)),
        *("--keep", 4, "--no-originals", "--device", "cpu"),
    )
    import PIL.Image

    for key, picture in zip(keys, pictures, strict=True):
        assert picture.tobytes() == PIL.Image.open(tmp_path / f"{key}.tokens-004.png").convert(picture.mode).tobytes()
    for wrong in (["a", "a"], ["a,b"], []):
        with pytest.raises(restok.SettingsError, match="expected"):
            restok.decode(output, wrong, tokenizer=TOKENIZER)


def test_keys_become_file_names_as_the_program_makes_them():
    from restok.decoding import _file_names

    names = _file_names(["n01440764_10026", "cats/../a b", "..", "a/b", "a_b"])
    assert names[:3] == ["n01440764_10026", "cats_.._a_b", "_.."]
    assert names[3] == f"a_b-{hashlib.sha256(b'a/b').hexdigest()[:8]}"


def test_the_program_is_found_and_its_errors_are_told(output, monkeypatch, tmp_path):
    with pytest.raises(restok.ProgramError, match=r"restok reconstruct ended with exit code 42, expected 0:\n(.|\n)*tokenizer"):
        restok.decode(output, ["blossom_01"], tokenizer=CLOTHES / "tokenizer", device="cpu")
    with pytest.raises(restok.ProgramError, match="binary is /nowhere/restok, expected a program"):
        restok.encode([b""], tokenizer=TOKENIZER, binary="/nowhere/restok")
    monkeypatch.delenv("RESTOK_BINARY")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(restok.ProgramError, match="no `restok` on the PATH: build it"):
        restok.encode([b""], tokenizer=TOKENIZER)


def test_a_setting_of_the_environment_decides_nothing(clothes, monkeypatch):
    monkeypatch.setenv("RESTOK_CROP", "no-crop")
    assert len(restok.encode(clothes[:1], tokenizer=CLOTHES / "tokenizer", devices="cpu")) == 1


def test_without_torch_the_rest_works_and_says_what_is_missing(output):
    script = (
        "import sys; sys.modules['torch'] = None; import restok; print(restok.open(sys.argv[1]).counts.written)\n"
        "try: restok.TokenLoader\nexcept ImportError as error: print(error)"
    )
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "python")}
    done = subprocess.run([sys.executable, "-c", script, output], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines() == ["36", "restok.TokenLoader needs torch, and torch is missing: pip install 'restok[torch]'"]

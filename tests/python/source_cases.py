"""Sources as people have them: makes each case, tokenizes it, and prints case, expected and seen.

    python tests/python/source_cases.py [NAME...]      with RESTOK_BINARY, or the development build

A case makes its own inputs. What is expected are the rows of the images table (key, label, class, status), what was left out by reason, and
the exit code with words of the error. `make source-cases` prints the table; test_source_cases.py holds every case in `make test`.
"""

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

import pyarrow
import pyarrow.parquet as pq
from PIL import Image

CHECKOUT = Path(__file__).resolve().parents[2]
TOKENIZER = CHECKOUT / "samples" / "fashion-mnist" / "tokenizer"
SECONDS_TO_END = 300


def picture(shade=128, kind="PNG", size=(40, 40)):
    """A small picture as a file of some format."""
    encoded = io.BytesIO()
    Image.new("RGB", size, (shade, 255 - shade, 60)).save(encoded, kind)
    return encoded.getvalue()


PNG, JPEG = picture(), picture(90, "JPEG")


@dataclass
class Case:
    name: str
    # Makes the inputs in a folder; may give the address to use in the place of that folder.
    make: Callable
    # Rows of the images table: (image_id, label, class_name, status).
    rows: list = field(default_factory=list)
    left_out: dict = field(default_factory=dict)
    flags: tuple = ()
    code: int = 0
    # Words of the error.
    words: tuple = ()


def write(folder, files):
    for name, content in files.items():
        path = os.path.join(os.fsencode(folder), name if isinstance(name, bytes) else name.encode())
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as opened:
            opened.write(content)


def folder_of(contents):
    return lambda folder: write(folder, contents)


def tar_bytes(members, format=tarfile.GNU_FORMAT):
    """Members as (name, content) or as a TarInfo without content."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=format) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            name, content = member
            content = content if isinstance(content, bytes) else content.encode()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def tar_of(*members, name="s.tar"):
    return lambda folder: write(folder, {name: tar_bytes(members)})


def link(kind, name, to):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


def image_column(paths, content=PNG):
    return pyarrow.array(
        [{"bytes": content, "path": path} for path in paths], pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    )


def table(names=None, **columns):
    made = pyarrow.table(columns)
    if names:
        feature = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        made = made.replace_schema_metadata({"huggingface": json.dumps(feature)})
    packed = io.BytesIO()
    pq.write_table(made, packed)
    return packed.getvalue()


def parquet_of(**contents):
    return lambda folder: write(folder, {name.replace("__", "/") + ".parquet": content for name, content in contents.items()})


def ok(image_id, label=None, class_name=None):
    return (image_id, label, class_name, "ok")


def no(image_id, label=None, class_name=None, status="unreadable"):
    return (image_id, label, class_name, status)


def inside_itself(folder):
    """The output lies in the source, and there is one from before."""
    write(folder, {"cats/a.png": PNG, "old/_plan/owner.json": b"{}", "old/pictures/png/0.png": PNG})


def strange_folder(folder):
    inner = Path(folder) / "br[1] 50%"
    write(inner, {"a.png": PNG})
    return inner


def one_archive(folder):
    write(folder, {"set.zip": b"PK\x03\x04"})
    return Path(folder) / "set.zip"


def class_list(folder):
    write(folder, {"set/10/a.png": PNG, "set/2/b.png": PNG, "classes.txt": "\n".join(map(str, range(11))).encode()})
    return Path(folder) / "set"


CASES = [
    # --- tar shards
    Case("tar: dots in names", tar_of(("1.5x.jpg", JPEG), ("22.05.png", PNG), ("22.06.png", PNG)), [ok("1.5x"), ok("22.05"), ok("22.06")]),
    Case("tar: label beside compound names", tar_of(("a.cls", "3"), ("a.1.png", PNG), ("a.2.png", PNG)), [ok("a.1", 3), ok("a.2", 3)]),
    Case(
        "tar: two archives",
        lambda folder: write(folder, {"s.tar": tar_bytes([("a.png", PNG)]) + tar_bytes([("b.png", PNG)])}),
        code=42,
        words=("s.tar", "one archive a shard"),
    ),
    Case(
        "tar: a hard link and a symbolic one",
        tar_of(("a.png", PNG), link(tarfile.LNKTYPE, "b.png", "a.png"), link(tarfile.SYMTYPE, "c.png", "a.png")),
        [ok("a"), no("b"), no("c")],
    ),
    Case(
        "tar: folders, macOS, other members",
        tar_of(link(tarfile.DIRTYPE, "x", ""), ("x/a.png", PNG), ("x/._a.png", b"x"), ("__MACOSX/a.png", b"x"), ("x/a.txt", "text")),
        [ok("a")],
        {"folder": 1, "hidden": 1, "leftover": 1, "other_member": 1},
    ),
    Case(
        "tar: .json that is a list, NaN, empty, null",
        tar_of(("a.png", PNG), ("a.json", '["x"]'), ("b.png", PNG), ("b.json", '{"label": NaN}'), ("c.png", PNG), ("c.json", ""), ("d.png", PNG), ("d.json", "null")),
        [ok("a"), ok("b"), ok("c"), ok("d")],
        {"side_file": 4},
    ),
    Case("tar: a .json with a byte order mark", tar_of(("a.png", PNG), ("a.json", "\ufeff{\"label\": 2}")), [ok("a", 2)]),
    Case("tar: label as text, number in text, list", tar_of(("a.png", PNG), ("a.json", '{"label": "cat"}'), ("b.png", PNG), ("b.json", '{"label": "3"}'), ("c.png", PNG), ("c.json", '{"label": [1]}')), [ok("a", None, "cat"), ok("b", 3), ok("c")], {"label": 1}),
    Case("tar: label that does not fit", tar_of(("a.png", PNG), ("a.cls", str(2**40))), [no("a")]),
    Case("tar: a jpg beside a png", tar_of(("a.jpg", JPEG), ("a.png", PNG)), code=42, words=("--image-extensions", "--image-id position")),
    Case("tar: a jpg beside a png, jpg wanted", tar_of(("a.jpg", JPEG), ("a.png", PNG)), [ok("a")], {"other_extension": 1}, flags=("--image-extensions", "jpg")),
    Case("tar: labels ignored", tar_of(("a.png", PNG), ("a.json", "{"), ("a.cls", "x")), [ok("a")], {"other_member": 2}, flags=("--labels", "none")),
    Case("tar: one name in two shards", lambda folder: write(folder, {"x/s.tar": tar_bytes([("0.png", PNG)]), "y/s.tar": tar_bytes([("0.png", PNG)])}), [ok("x/s/00000000"), ok("y/s/00000000")], flags=("--image-id", "position")),
    # --- Parquet
    Case("parquet: label that does not fit", parquet_of(a=table(image=image_column(["a.png", "b.png"]), label=[1, 2**40])), [ok("a", 1), no("b")]),
    Case("parquet: column labels", parquet_of(a=table(image=image_column(["a.png"]), labels=[5])), [ok("a", 5)], flags=("--label-column", "labels")),
    Case("parquet: plain binary in jpg", parquet_of(a=table(jpg=[JPEG], label=[1])), [ok("a-row-0", 1)]),
    Case("parquet: nested columns and a key", parquet_of(a=table(sample=pyarrow.array([{"photo": PNG, "cls": 2}]), key=["k"])), [ok("k", 2)], flags=("--image-column", "sample.photo", "--label-column", "sample.cls", "--id-column", "key")),
    Case("parquet: string view and dictionary", parquet_of(a=table(image=image_column(["a.png"]), label=pyarrow.array(["cat"]).dictionary_encode())), [ok("a", None, "cat")]),
    Case("parquet: class names that differ", parquet_of(a=table(names=["cat", "dog"], image=image_column(["a.png"]), label=[0]), b=table(names=["dog", "cat"], image=image_column(["b.png"]), label=[0])), code=42, words=("a.parquet", "b.parquet", "--classes")),
    Case("parquet: base names that repeat", parquet_of(a=table(image=image_column(["0.png"])), b=table(image=image_column(["0.png"]))), [ok("a/00000000"), ok("b/00000000")], flags=("--image-id", "position")),
    Case(
        "parquet: Spark's leftovers",
        lambda folder: write(folder, {"p.parquet": table(image=image_column(["a.png"])), "_temporary/0/p.parquet": table(image=image_column(["a.png"])), "_SUCCESS": b"", ".p.parquet.crc": b"x"}),
        [ok("a")],
        {"leftover": 1, "hidden": 1, "other_file": 1},
    ),
    Case("parquet: a Delta table", lambda folder: write(folder, {"p.parquet": table(image=image_column(["a.png"])), "_delta_log/00000000000000000000.json": b"{}"}), code=42, words=("a Delta table",)),
    Case("parquet: an Iceberg table", lambda folder: write(folder, {"data/p.parquet": table(image=image_column(["a.png"])), "metadata/v1.metadata.json": b"{}"}), code=42, words=("an Iceberg table",)),
    # --- folders
    Case("folder: .jfif, other formats, other files", folder_of({"a.jfif": JPEG, "b.qoi": b"qoif", "c.txt": b"x", "d": PNG}), [ok("a"), no("b", status="unsupported")], {"other_file": 2}),
    Case("folder: every file, by content", folder_of({"a": PNG, "b.bin": JPEG}), [ok("a"), ok("b")], flags=("--image-extensions", "any")),
    Case("folder: no extensions, layout said", folder_of({"a": PNG, "b": JPEG}), [ok("a"), ok("b")], flags=("--layout", "folder")),
    Case("folder: what systems leave", folder_of({"cats/a.png": PNG, "@eaDir/a.png": PNG, "cats/.a.png": PNG}), [ok("a", 0, "cats")], {"leftover": 1, "hidden": 1}),
    Case("folder: a class list", class_list, [ok("a", 10, "10"), ok("b", 2, "2")], flags=("--classes", "{folder}/classes.txt")),
    Case("folder: the output inside the source", inside_itself, [ok("a", 0, "cats")], {"own_output": 2}, flags=("--output", "{folder}/tokens")),
    Case("folder: a name with wildcards", strange_folder, [ok("a")]),
    Case("one file of another kind", one_archive, code=42, words=("set.zip", "one file of 4 bytes")),
]


def binary():
    return Path(os.environ.get("RESTOK_BINARY") or CHECKOUT / "target" / "debug" / "restok")


def seen(case, folder):
    """What the program makes of a case: as much of a case as there is to compare."""
    source, output = Path(folder) / "source", Path(folder) / "output"
    source.mkdir()
    address = case.make(source) or source
    flags = [flag.format(folder=source) for flag in case.flags]
    if "--output" in flags:
        output = Path(flags[flags.index("--output") + 1])
    else:
        flags += ["--output", str(output)]
    command = [binary(), "tokenize", "--source", address, "--tokenizer", TOKENIZER, "--devices", "cpu", "--max-reject-rate", "100%"]
    command += ["--format", "json", "--progress", "none", *flags]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RESTOK_")}
    runs = []
    # A second start goes on with the same plan, whatever the first one left behind.
    for _ in range(2):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, timeout=SECONDS_TO_END)
        runs.append(done)
        if done.returncode != 0:
            break
    if any(run.returncode != 0 for run in runs):
        failed = next(run for run in runs if run.returncode != 0)
        return Case(case.name, case.make, code=failed.returncode, words=(failed.stderr.strip(),))
    report = json.loads(runs[-1].stdout)
    tables = [pq.read_table(file).to_pylist() for file in sorted((output / "images").rglob("*.parquet"))]
    rows = [(row["image_id"], row["label"], row["class_name"], row["status"]) for part in tables for row in part]
    left_out = {reason: left["count"] for reason, left in report["books"].get("left_out", {}).items()}
    return Case(case.name, case.make, rows, left_out)


def shown(case):
    if case.code:
        return f"exit code {case.code}: {', '.join(case.words)}"
    rows = ", ".join(f"{image_id} {'-' if label is None else label} {class_name or '-'} {status}" for image_id, label, class_name, status in case.rows)
    left = ", ".join(f"{count} {reason}" for reason, count in case.left_out.items())
    return f"{rows}; left out: {left or 'nothing'}"


def as_expected(case, found):
    if case.code:
        return found.code == case.code and all(word in found.words[0] for word in case.words)
    return (found.code, found.rows, found.left_out) == (0, case.rows, case.left_out)


def main():
    wanted = [case for case in CASES if len(sys.argv) == 1 or case.name in sys.argv[1:]]
    wrong = 0
    for case in wanted:
        with tempfile.TemporaryDirectory(prefix="restok-case-") as folder:
            found = seen(case, folder)
        right = as_expected(case, found)
        wrong += not right
        # Of an error, its last line: the log lies in front of it.
        last = shown(found).splitlines()[-1]
        print(f"{'as expected' if right else 'WRONG':<12} {case.name}\n    expected  {shown(case)}\n    seen      {last}")
    print(f"\n{len(wanted) - wrong} of {len(wanted)} as expected")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()

"""Stores as others wrote them: moto plays S3, Azurite plays Azure. A run from store to store, and what reads its output there.

The project's own S3 server (tests/src/s3_server) fails on request, but it was written by those who wrote the client's use of it.
"""

import base64
import contextlib
import hashlib
import hmac
import os
import re
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from xml.etree import ElementTree

import pyarrow.parquet as pq
import pytest
import restok as restok_package
from conftest import CHECKOUT, SAMPLES, SECONDS_TO_END, TOKENIZER, binary, restok

SERVERS = CHECKOUT / ".deps" / "servers"
SECONDS_TO_START = 60
CLOTHES = SAMPLES / "fashion-mnist"
BUCKET = "restok-test"
SHARDS = sorted((SAMPLES / "webdataset").glob("*.tar"))
# A name that each store spells in its own way.
FOLDER = "my images+more/50%"


@contextlib.contextmanager
def running(program, *arguments, says):
    """A server on a port that it has chosen itself; gives its address, found in what it says."""
    if not program.exists():
        raise FileNotFoundError(f"{program} is not set up: run `make setup-servers`")
    with tempfile.TemporaryDirectory(prefix="restok-server-") as folder:
        output = Path(folder) / "output"
        with output.open("wb") as file:
            process = subprocess.Popen([program, *arguments], cwd=folder, stdout=file, stderr=subprocess.STDOUT)
        try:
            ends = time.monotonic() + SECONDS_TO_START
            while not (said := re.search(says, output.read_text(errors="replace"))):
                if process.poll() is not None or time.monotonic() > ends:
                    raise TimeoutError(f"{program.name} does not say its address; it said: {output.read_text(errors='replace')}")
                time.sleep(0.05)
            yield said[1]
        finally:
            process.terminate()
            process.wait()


def ask(method, address, data=None, **headers):
    """The body of an answer of this machine."""
    # Python would call it a form, which moto takes apart.
    headers = {"Content-Type": "application/octet-stream", **headers}
    request = urllib.request.Request(address, data, headers, method=method)
    # A proxy of the environment is not for this machine.
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=SECONDS_TO_START) as answer:
        return answer.read()


class Moto:
    """S3 by moto, which checks no signature."""

    name = "moto"
    scheme = "s3"
    signature = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=key%2F20260101%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Signature=c0ffee"

    @classmethod
    @contextlib.contextmanager
    def start(cls):
        with running(SERVERS / "python" / "bin" / "moto_server", "-p", "0", says=r"Running on (http://127\.0\.0\.1:\d+)") as address:
            yield cls(address)

    def __init__(self, address):
        self.address = f"{address}/{BUCKET}"
        self.environment = {
            "AWS_ENDPOINT": address,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret-that-must-not-be-shown",
            "AWS_REGION": "us-east-1",
        }
        self.secrets = ("secret-that-must-not-be-shown", "c0ffee")
        # Whose request it is, moto reads from here.
        self.headers = {"Authorization": "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"}
        ask("PUT", self.address, **self.headers)

    def put(self, key, data):
        ask("PUT", f"{self.address}/{urllib.parse.quote(key)}", data, **self.headers)

    def get(self, key):
        return ask("GET", f"{self.address}/{urllib.parse.quote(key)}", **self.headers)

    def keys(self, prefix):
        query = urllib.parse.urlencode({"list-type": 2, "prefix": prefix})
        page = ElementTree.fromstring(ask("GET", f"{self.address}?{query}", **self.headers))
        return [key.text for key in page.iterfind("{*}Contents/{*}Key")]

    def signed_url(self, key):
        return f"{self.address}/{urllib.parse.quote(key)}?{self.signature}"


class Azurite:
    """Azure's blobs by Azurite, with the account and the key that every Azurite has."""

    name = "azurite"
    scheme = "az"
    account = "devstoreaccount1"
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

    @classmethod
    @contextlib.contextmanager
    def start(cls):
        # The version of the protocol that object_store speaks may be newer than Azurite.
        flags = ("--blobHost", "127.0.0.1", "--blobPort", "0", "--skipApiVersionCheck", "--inMemoryPersistence", "--disableTelemetry")
        says = r"successfully listens on (http://127\.0\.0\.1:\d+)"
        with running(SERVERS / "node_modules" / ".bin" / "azurite-blob", *flags, says=says) as address:
            yield cls(address)

    def __init__(self, address):
        self.address = f"{address}/{self.account}/{BUCKET}"
        self.environment = {
            "AZURE_STORAGE_USE_EMULATOR": "true",
            "AZURITE_BLOB_STORAGE_URL": address,
            "AZURE_STORAGE_ACCOUNT_NAME": self.account,
            "AZURE_STORAGE_ACCOUNT_KEY": self.key,
        }
        self.all = self._signature("racwdl")
        self.read = self._signature("r")
        signatures = [urllib.parse.parse_qs(signature)["sig"][0] for signature in (self.all, self.read)]
        self.secrets = (self.key, *signatures, *map(urllib.parse.quote_plus, signatures))
        ask("PUT", f"{self.address}?restype=container&{self.all}", b"")

    def _signature(self, permissions):
        """A shared access signature of the account, for blobs and their container."""
        version, expires = "2018-11-09", "2099-01-01T00:00:00Z"
        fields = (self.account, permissions, "b", "co", "", expires, "", "https,http", version, "")
        digest = hmac.new(base64.b64decode(self.key), "\n".join(fields).encode(), hashlib.sha256).digest()
        query = {"sv": version, "ss": "b", "srt": "co", "sp": permissions, "se": expires, "spr": "https,http"}
        return urllib.parse.urlencode({**query, "sig": base64.b64encode(digest).decode()})

    def put(self, key, data):
        ask("PUT", f"{self.address}/{urllib.parse.quote(key)}?{self.all}", data, **{"x-ms-blob-type": "BlockBlob"})

    def get(self, key):
        return ask("GET", f"{self.address}/{urllib.parse.quote(key)}?{self.all}")

    def keys(self, prefix):
        query = urllib.parse.urlencode({"restype": "container", "comp": "list", "prefix": prefix})
        page = ElementTree.fromstring(ask("GET", f"{self.address}?{query}&{self.all}"))
        return [name.text for name in page.iterfind("Blobs/Blob/Name")]

    def signed_url(self, key):
        return f"{self.address}/{urllib.parse.quote(key)}?{self.read}"


class Store:
    """A server with the sample's shards in it, and the program run with its credentials."""

    def __init__(self, server, monkeypatch):
        self.server, self.monkeypatch = server, monkeypatch
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)

    def uri(self, path):
        return f"{self.server.scheme}://{BUCKET}/{path}"

    def rows(self, output):
        """Tokens of an output in the store, by image and view."""
        rows = {}
        for key in self.server.keys(f"{output}/tokens/"):
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "part.parquet"
                file.write_bytes(self.server.get(key))
                table = pq.read_table(file, partitioning=None)
            rows.update({(row["image_id"], row["view"]): row["tokens"] for row in table.to_pylist()})
        return rows


@pytest.fixture(scope="module", params=[Moto, Azurite], ids=lambda kind: kind.name)
def store(request):
    reason = CHECKOUT / ".deps" / f"no-{request.param.name}"
    if reason.exists():
        pytest.skip(reason.read_text().strip())
    with pytest.MonkeyPatch.context() as monkeypatch, request.param.start() as server:
        for shard in SHARDS:
            server.put(f"{FOLDER}/{shard.name}", shard.read_bytes())
        yield Store(server, monkeypatch)


def tokenize(source, output, *options):
    return restok(
        *("tokenize", "--source", source, "--output", output, "--tokenizer", TOKENIZER),
        *("--split", "sample", "--devices", "cpu", "--unit-size", 16, "--batch-size", 8, "--max-reject-rate", "10%"),
        *options,
    )


def local_rows(output):
    rows = {}
    for file in (output / "tokens").rglob("*.parquet"):
        table = pq.read_table(file, partitioning=None)
        rows.update({(row["image_id"], row["view"]): row["tokens"] for row in table.to_pylist()})
    return rows


@pytest.fixture(scope="module")
def expected(outputs):
    """The rows of the same shards on this machine."""
    rows = local_rows(outputs["webdataset"])
    assert rows
    return rows


def test_a_set_goes_from_store_to_store_and_is_verified_there(store, expected):
    source, output = store.uri(f"{FOLDER}/*.tar"), store.uri("tokens out")
    tokenize(source, output)
    assert store.rows("tokens out") == expected
    restok("verify", output)
    # The same command finds it finished, and writes nothing.
    before = store.server.keys("tokens out/")
    tokenize(source, output)
    assert store.server.keys("tokens out/") == before
    assert not [key for key in before if "_staging" in key]


def test_the_python_package_reads_what_is_there(store, expected):
    output = store.uri("tokens for python")
    tokenize(store.uri(f"{FOLDER}/*.tar"), output)
    opened = restok_package.open(output)
    rows = [row for batch in opened.batches() for row in batch.to_pylist()]
    assert {(row["image_id"], row["view"]): row["tokens"] for row in rows} == expected
    assert opened.tokens().count_rows() == len(expected)
    # An unfinished one goes by a listing.
    tokenize(store.uri(f"{FOLDER}/*.tar"), store.uri("unfinished for python"), "--no-finalize")
    unfinished = restok_package.open(store.uri("unfinished for python"), allow_unfinished=True)
    assert not unfinished.finished and unfinished.token_files == opened.token_files
    with pytest.raises(restok_package.OutputError, match="expected an output of restok"):
        restok_package.open(store.uri("nothing here"))


def test_a_signed_url_is_enough_to_read(store, expected, tmp_path):
    shard = SHARDS[0]
    for name in store.server.environment:
        store.monkeypatch.delenv(name)
    try:
        tokenize(store.server.signed_url(f"{FOLDER}/{shard.name}"), tmp_path / "signed")
    finally:
        for name, value in store.server.environment.items():
            store.monkeypatch.setenv(name, value)
    rows = local_rows(tmp_path / "signed")
    assert rows and rows.items() <= expected.items()
    for file in (tmp_path / "signed").rglob("*"):
        if file.is_file():
            held = file.read_bytes()
            assert not [secret for secret in store.server.secrets if secret.encode() in held], file


def test_a_generated_set_lies_in_the_store_and_a_report_is_made_of_both(store, tmp_path):
    output = store.uri("generated")
    restok(
        *("generate", "--generator", CLOTHES / "generator", "--tokenizer", CLOTHES / "tokenizer", "--output", output),
        *("--count", 30, "--unit-size", 12, "--batch-size", 6, "--guidance-scale", 2, "--pictures", "npz,parquet,webdataset,png"),
        *("--devices", "cpu", "--device-threads", 1),
    )
    restok("verify", output)
    pictures = store.server.keys("generated/pictures/")
    assert {key.split("/")[2].split(".")[0] for key in pictures} >= {"samples", "parquet", "webdataset", "png"}
    restok("report", output, "--to", tmp_path / "report.html")
    assert "<html" in (tmp_path / "report.html").read_text()


def test_what_is_not_there_is_told_by_its_name(store):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RESTOK_")}
    for source, words in [
        (store.uri(f"{FOLDER}/none-*.tar"), "none-*.tar"),
        (f"{store.server.scheme}://no-such-bucket-here/images", "no-such-bucket-here"),
    ]:
        command = [binary(), "tokenize", "--source", source, "--output", store.uri("none"), "--tokenizer", TOKENIZER, "--devices", "cpu"]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, timeout=SECONDS_TO_END)
        assert done.returncode == 42, done.stderr
        assert words in done.stderr and not [secret for secret in store.server.secrets if secret in done.stderr], done.stderr

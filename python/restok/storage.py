"""Where an output lies: a folder, or a prefix of an object store, read through pyarrow's file systems or fsspec's.

Addresses are those of the program: plain paths, file://, s3://, gs://, az://, abfs:// and https://, with credentials from the same environment
variables. Any other scheme is left to fsspec.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from restok.errors import OutputError, SettingsError

#: Small requests that are made at the same time: latency is all they cost.
REQUESTS_AT_ONCE = 16


class Storage:
    """One folder or prefix. Cheap to copy into another process, where it connects anew."""

    def __init__(self, url: str | os.PathLike[str], filesystem: Any = None) -> None:
        """`filesystem`, of pyarrow or fsspec, takes the place of the one that the scheme of `url` and the environment name."""
        #: The address as it was given.
        self.address = os.fspath(url)
        self._given = filesystem
        self._opened: tuple[int, pafs.FileSystem, str] | None = None
        #: The address without credentials, for people.
        self.url = _without_credentials(self.address).rstrip("/") or "/"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    @property
    def filesystem(self) -> pafs.FileSystem:
        """The file system; `path_of` gives paths in it."""
        return self._open()[0]

    def path_of(self, path: str) -> str:
        """Where a file of the output lies in the file system."""
        root = self._open()[1]
        return f"{root}/{path}" if root else path

    def address_of(self, path: str) -> str:
        """The address of a file of the output, for people."""
        return f"{self.url.rstrip('/')}/{path}"

    def read(self, path: str, what: str = "is missing") -> pa.Buffer:
        """All bytes of a file; of a file on this machine, its pages in memory."""
        content = self.read_if_exists(path)
        if content is None:
            raise OutputError(f"{self.address_of(path)}: {what}")
        return content

    def read_if_exists(self, path: str) -> pa.Buffer | None:
        """All bytes of a file, if it is there."""
        try:
            with self.filesystem.open_input_file(self.path_of(path)) as file:
                return file.read_buffer()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def sizes(self, paths: Sequence[str]) -> list[int | None]:
        """The size of each file; None where it is not there."""
        filesystem, places = self.filesystem, [self.path_of(path) for path in paths]
        # Given all at once, pyarrow asks for one after the other.
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            infos = pool.map(filesystem.get_file_info, places)
            return [info.size if info.type == pafs.FileType.File else None for info in infos]

    def names_in(self, folder: str) -> list[str]:
        """Names of the files right below a folder, sorted."""
        if urlsplit(self.address).scheme in ("http", "https") and self._given is None:
            raise SettingsError(f"{self.url}: an unfinished output has to be listed, which https:// cannot: finish it, or name its store")
        selector = pafs.FileSelector(self.path_of(folder), allow_not_found=True)
        infos = self.filesystem.get_file_info(selector)
        return sorted(info.base_name for info in infos if info.type == pafs.FileType.File)

    def _open(self) -> tuple[pafs.FileSystem, str]:
        # Connections do not survive a fork.
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), *_connect(self.address, self._given))
        return self._opened[1:]


def _connect(address: str, given: Any) -> tuple[pafs.FileSystem, str]:
    """The file system of an address, and the path in it without a slash at its end."""
    parts = urlsplit(address)
    scheme = parts.scheme if "://" in address else ""
    in_store = f"{parts.netloc}{unquote(parts.path)}".rstrip("/")
    if given is not None:
        path = in_store if scheme else address.rstrip("/")
        return (given if isinstance(given, pafs.FileSystem) else _from_fsspec(given)), path
    if scheme in ("", "file"):
        path = os.path.abspath(unquote(parts.path) if scheme else address)
        return pafs.LocalFileSystem(use_mmap=True), path.rstrip("/")
    if parts.query and scheme not in ("http", "https"):
        raise SettingsError(f"{_without_credentials(address)}: a query is not read here: credentials come from the cloud's own variables")
    if scheme in ("s3", "s3a"):
        return _s3(os.environ), in_store
    if scheme in ("gs", "gcs"):
        return pafs.GcsFileSystem(), in_store
    if scheme in ("az", "azure", "abfs", "abfss", "adl"):
        # abfs://container@account.host/path, or az://container/path.
        container, _, host = parts.netloc.partition("@")
        return _azure(os.environ, host.partition(".")[0]), f"{container}{unquote(parts.path)}".rstrip("/")
    return _by_fsspec(scheme, address)


def _s3(environment: Mapping[str, str]) -> pafs.FileSystem:
    options: dict[str, Any] = {}
    endpoint = environment.get("AWS_ENDPOINT") or environment.get("AWS_ENDPOINT_URL")
    if endpoint:
        options["endpoint_override"] = endpoint.partition("://")[2] or endpoint
        options["scheme"] = "http" if endpoint.startswith("http://") else "https"
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    if region:
        options["region"] = region
    if environment.get("AWS_SKIP_SIGNATURE", "").lower() in ("1", "true"):
        options["anonymous"] = True
    return pafs.S3FileSystem(**options)


def _azure(environment: Mapping[str, str], account: str) -> pafs.FileSystem:
    if not hasattr(pafs, "AzureFileSystem"):
        raise SettingsError(f"pyarrow {pa.__version__} reads no Azure storage, expected a newer one, or `filesystem=` of fsspec")
    account = account or environment.get("AZURE_STORAGE_ACCOUNT_NAME", "")
    if not account:
        raise SettingsError("AZURE_STORAGE_ACCOUNT_NAME is not set, expected the storage account of az://")
    options = {
        "account_key": environment.get("AZURE_STORAGE_ACCOUNT_KEY") or environment.get("AZURE_STORAGE_ACCESS_KEY"),
        "sas_token": environment.get("AZURE_STORAGE_SAS_TOKEN"),
    }
    if environment.get("AZURE_STORAGE_USE_EMULATOR", "").lower() in ("1", "true"):
        place = urlsplit(environment.get("AZURITE_BLOB_STORAGE_URL", "http://127.0.0.1:10000"))
        for service in ("blob", "dfs"):
            options |= {f"{service}_storage_authority": place.netloc, f"{service}_storage_scheme": place.scheme}
    return pafs.AzureFileSystem(account, **{name: value for name, value in options.items() if value})


def _by_fsspec(scheme: str, address: str) -> tuple[pafs.FileSystem, str]:
    try:
        import fsspec
    except ImportError as error:
        raise SettingsError(f"{scheme}:// is read through fsspec, which is not installed: pip install 'restok[fsspec]'") from error
    try:
        filesystem = fsspec.filesystem(scheme)
    except (ValueError, ImportError) as error:
        raise SettingsError(f"{scheme}:// cannot be read: {error}") from error
    return _from_fsspec(filesystem), filesystem._strip_protocol(address).rstrip("/")


def _from_fsspec(filesystem: Any) -> pafs.FileSystem:
    return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem))


def _without_credentials(address: str) -> str:
    """For people: no user, no password, no signature."""
    if "://" not in address:
        return address
    parts = urlsplit(address)
    # With Azure, what stands before the host is the container.
    keeps_user = parts.scheme in ("abfs", "abfss") and ":" not in parts.netloc.partition("@")[0]
    host = parts.netloc if keeps_user else parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"

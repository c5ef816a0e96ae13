"""docs/python.ipynb runs from its first cell to its last. Cells that need torch are left out where there is none."""

import os

import nbclient
import nbformat
from conftest import CHECKOUT, SECONDS_TO_END, binary
from torch_for_tests import import_torch

NOTEBOOK = CHECKOUT / "docs" / "python.ipynb"
NEEDS_TORCH = "torch"


def test_the_notebook_runs(monkeypatch, tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    path = [str(CHECKOUT / "python")]
    try:
        _, in_front = import_torch()
        path += [str(in_front)] if in_front else []
    except ImportError:
        notebook.cells = [cell for cell in notebook.cells if NEEDS_TORCH not in cell.metadata.get("tags", [])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    monkeypatch.setenv("RESTOK_BINARY", str(binary()))
    # Nothing of the user's own kernel and history.
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    client = nbclient.NotebookClient(notebook, timeout=SECONDS_TO_END, kernel_name="python3", resources={"metadata": {"path": CHECKOUT}})
    client.execute()
    said = [output.get("text", "") + str(output.get("data", {}).get("text/plain", "")) for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("10 images of 32 tokens, 1 rejects" in text for text in said)
    if any(NEEDS_TORCH in cell.metadata.get("tags", []) for cell in notebook.cells):
        assert any("torch.int64" in text for text in said)


def test_the_notebook_is_kept_with_its_outputs_and_without_traces_of_a_machine():
    text = NOTEBOOK.read_text()
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    assert all(cell.outputs for cell in notebook.cells if cell.cell_type == "code" and "import restok" not in cell.source)
    assert "/tmp/" not in text and "execution\": {" not in text

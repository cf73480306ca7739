"""A notebook in a real kernel: answers draw themselves, figures show, bars do not disturb."""

from __future__ import annotations

import asyncio
import os
import warnings
from pathlib import Path

import pytest
from conftest import missing

pytestmark = pytest.mark.slow

CELLS = [
    """
import warnings
warnings.simplefilter("error")
import torch
from facexai import SDD, FaceModel, HiResCAM, InputSpec, ScoreCAM, metrics
torch.manual_seed(0)
net = torch.nn.Sequential(
    torch.nn.Conv2d(3, 4, 3, 2), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(196, 8)
)
faces = torch.rand(3, 3, 16, 16)
people = FaceModel(net, InputSpec(16)).gallery({"<b>ann</b>": faces[:1], "bo": faces[1:2]})
people
""",
    "why = SDD(HiResCAM(people, layer='0'), rivals=1)(faces); why",
    "why.plot_rivals()",
    "metrics.deletion(people, faces, why)",
    "ScoreCAM(people, layer='0', progress=True)(faces)",
]


def executed(cells: list[str] | Path, folder: Path) -> list[list[dict]]:
    """The outputs of each code cell."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Jupyter's own
            import nbclient
            import nbformat
    except ImportError as error:
        missing("jupyter", f"{error.name} is not installed")
    if isinstance(cells, Path):
        book = nbformat.read(cells, 4)
    else:
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
        client = nbclient.NotebookClient(
            book, timeout=300, kernel_name="python3", resources={"metadata": {"path": folder}}
        )
        asyncio.run(client.async_execute())
    return [cell.outputs for cell in book.cells if cell.cell_type == "code"]


def test_answers_draw_themselves_in_a_kernel(tmp_path):
    gallery, why, figure, drop, bar = executed(CELLS, tmp_path)
    assert "&lt;b&gt;ann" in gallery[0].data["text/html"]
    assert '<img alt="Saliency(SDD' in why[0].data["text/html"]
    assert "image/png" in figure[0].data
    assert "<img" in drop[0].data["text/html"]
    assert "<table>" in drop[0].data["text/html"]
    assert "<img" in bar[-1].data["text/html"]
    told = " ".join(str(output) for output in bar[:-1])
    assert "Score-CAM" in told
    assert "Warning" not in told


def test_a_notebook_of_the_gallery_runs(zoo_installed, tmp_path):
    built = os.environ.get("FACEXAI_GALLERY")
    if not built:
        missing("gallery", "FACEXAI_GALLERY does not name the folder of the built documentation")
    (book,) = Path(built).glob("_downloads/*/your_own_network.ipynb")
    outputs = executed(book, tmp_path)
    assert "image/png" in outputs[-1][-1].data
    assert [path.name for path in tmp_path.iterdir()] == ["your_own_network.png"]

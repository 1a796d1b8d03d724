"""The pages: every link leads somewhere, and the guide's equation 1 is what the code computes."""

import json
import re
from functools import reduce
from pathlib import Path

import pytest
import torch

import diffusion_ql

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "tutorials" / "README.md"
PAGES = [GUIDE, ROOT / "README.md", ROOT / "toy_experiments" / "README.md"]
PAGES += sorted((ROOT / "tutorials").rglob("*.ipynb"))


def read(page):
    """The text of a page; of a notebook, that of its markdown cells."""
    text = page.read_text()
    if page.suffix == ".md":
        return text
    cells = json.loads(text)["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def anchor(heading):
    """GitHub's address of a heading."""
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return kept.replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", read(page)):
        if target.startswith("https://"):
            continue
        path, _, heading = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        if heading and file.suffix == ".md":
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            assert heading in [anchor(text) for text in headings], target


def test_the_functions_that_the_guide_names_are_in_the_code():
    names = re.findall(r"\[`([\w.]+)`\]\(\.\./diffusion_ql\.py\)", GUIDE.read_text())
    assert names.pop(0) == "diffusion_ql.py" and names
    for name in names:
        assert reduce(getattr, name.split("."), diffusion_ql)


@pytest.mark.parametrize("n", [2, 5, 50])
def test_the_schedule_and_the_posteriors_mean_are_those_of_the_papers_equation_1(n):
    of = {name: values.double() for name, values in diffusion_ql.vp_schedule(n).items()}
    i = torch.arange(1, n + 1, dtype=torch.float64)
    betas = 1 - torch.exp(-0.1 / n - (10 - 0.1) * (2 * i - 1) / (2 * n**2))
    torch.testing.assert_close(of["betas"], betas, rtol=1e-5, atol=1e-7)
    kept = of["alphas_cumprod"]
    x, noise = torch.randn(2, n, dtype=torch.float64)
    x0 = (x - (1 - kept).sqrt() * noise) / kept.sqrt()
    posterior = of["posterior_mean_coef1"] * x0 + of["posterior_mean_coef2"] * x
    paper = (x - of["betas"] / (1 - kept).sqrt() * noise) / (1 - of["betas"]).sqrt()
    torch.testing.assert_close(posterior, paper, rtol=1e-4, atol=1e-5)
    assert of["posterior_variance"][0] == 0

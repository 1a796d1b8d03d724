"""The pages: every link leads somewhere, and the guide's equation 1 is what the code computes.

Only the guide, tutorials/README.md, links to lines of diffusion_ql.py. When these have moved, no
test fails; this gives the links their new numbers:

    python tests/test_guide.py
"""

import ast
import json
import re
import warnings
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "tutorials" / "README.md"
PAGES = [GUIDE, ROOT / "README.md", ROOT / "toy_experiments" / "README.md"]
PAGES += sorted((ROOT / "tutorials").rglob("*.ipynb"))
LINE = re.compile(r"\[`([\w.]+)`\]\(\.\./diffusion_ql\.py#L(\d+)\)")  # of a name, to a line


def read(page):
    """The text of a page; of a notebook, that of its markdown cells."""
    text = page.read_text()
    if page.suffix == ".md":
        return text
    cells = json.loads(text)["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def definitions():
    """{name: line} of every function and class in diffusion_ql.py; methods as Class.method."""
    lines = {}
    for node in ast.parse((ROOT / "diffusion_ql.py").read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            lines[node.name] = node.lineno
        if isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, ast.FunctionDef):
                    lines[f"{node.name}.{method.name}"] = method.lineno
    return lines


def mend_lines():
    lines = definitions()

    def with_line(link):
        name = link[1]
        return f"[`{name}`](../diffusion_ql.py#L{lines[name]})"

    GUIDE.write_text(LINE.sub(with_line, GUIDE.read_text()))


def test_what_the_guide_links_to_in_the_code_is_there():
    lines = definitions()
    links = LINE.findall(GUIDE.read_text())
    assert links and {name for name, _ in links} <= set(lines)
    if any(int(number) != lines[name] for name, number in links):
        warnings.warn("lines have moved: python tests/test_guide.py mends the links", stacklevel=1)


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
        file = page
        if path:
            file = page.parent / path
        assert file.exists(), target
        if heading and file.suffix == ".md":
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            assert heading in [anchor(text) for text in headings], target


# ---- Equations -----------------------------------------------------------------------------------
def schedule(n_timesteps):
    from diffusion_ql import vp_schedule  # a script in this folder does not find it

    return {name: values.double() for name, values in vp_schedule(n_timesteps).items()}


@pytest.mark.parametrize("n_timesteps", [2, 5, 50])
def test_the_posteriors_mean_is_that_of_the_papers_equation_1(n_timesteps):
    of = schedule(n_timesteps)
    kept = of["alphas_cumprod"]
    x, noise = torch.randn(2, n_timesteps, dtype=torch.float64)
    x0 = (x - (1 - kept).sqrt() * noise) / kept.sqrt()
    posterior = of["posterior_mean_coef1"] * x0 + of["posterior_mean_coef2"] * x
    paper = (x - of["betas"] / (1 - kept).sqrt() * noise) / (1 - of["betas"]).sqrt()
    torch.testing.assert_close(posterior, paper, rtol=1e-4, atol=1e-5)
    assert of["posterior_variance"][0] == 0


def test_the_schedule_is_the_papers():
    n = 5
    i = torch.arange(1, n + 1, dtype=torch.float64)
    betas = 1 - torch.exp(-0.1 / n - (10 - 0.1) * (2 * i - 1) / (2 * n**2))
    torch.testing.assert_close(schedule(n)["betas"], betas, rtol=1e-5, atol=1e-7)


if __name__ == "__main__":
    mend_lines()

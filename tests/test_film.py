"""The README's moving picture: it is small, and what its command makes."""

import numpy as np
import pytest
from PIL import Image

from tutorials.making import film


@pytest.fixture(scope="module")
def screen():
    return film.Screen(film.make_ways(film.Args.seed))


@pytest.mark.parametrize("step", [0, 45, film.N_TIMESTEPS])
def test_its_frames_are_those_of_the_command(step, screen):
    file = film.FIGURES / "film.gif"
    drawn = np.asarray(screen.frame(step).convert("RGB"), dtype=float)
    with Image.open(file) as gif:
        gif.seek(list(film.SHOWN).index(step))
        shown = np.asarray(gif.convert("RGB"), dtype=float)
        assert gif.n_frames == len(film.SHOWN) and gif.info["duration"] == film.SHOWN[step]
    assert np.abs(shown - drawn).mean() < 0.5  # another seed's frame is off by 1 to 9
    assert file.stat().st_size < 1e6


def test_what_it_shows_is_what_the_readme_says(screen):
    said = (film.FIGURES.parents[1] / "README.md").read_text().split("```")[0]
    cloning, guided = [film.shares(way) for way in screen.ways.values()]
    on_corner, on_best = cloning[0].split()[0], guided[1].split()[0]
    assert on_corner in said and on_best in said

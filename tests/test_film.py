"""The README's moving picture: it is small, and what its command makes."""

import film
import numpy as np
import pytest
from PIL import Image

FILE = film.FIGURES / "film.gif"


@pytest.fixture(scope="module")
def screen():
    return film.Screen(film.make_ways(film.Args.seed))


def test_it_loads_fast_and_rests_on_the_actions():
    assert FILE.stat().st_size < 1e6
    with Image.open(FILE) as gif:
        assert gif.n_frames == len(film.SHOWN)
        gif.seek(gif.n_frames - 1)
        assert gif.info["duration"] == film.SHOWN[film.N_TIMESTEPS] >= 3000
        assert gif.info["loop"] == 0


@pytest.mark.parametrize("step", [0, 30, 45, film.N_TIMESTEPS])
def test_its_frames_are_those_of_the_command(step, screen):
    drawn = np.asarray(screen.frame(step).convert("RGB"), dtype=float)
    with Image.open(FILE) as gif:
        gif.seek(list(film.SHOWN).index(step))
        shown = np.asarray(gif.convert("RGB"), dtype=float)
    assert shown.shape == drawn.shape
    assert np.abs(shown - drawn).mean() < 0.5  # another seed's frame is off by 1 to 9


def test_what_it_shows_is_what_the_readme_says(screen):
    said = (film.HERE.parent / "README.md").read_text().split("```")[0]
    cloning, guided = [film.shares(way) for way in screen.ways.values()]
    on_corner, on_best = cloning[0].split()[0], guided[1].split()[0]
    assert on_corner in said and on_best in said


def test_another_weight_of_q_looks_different():
    """What toy_experiments/README.md says of eta = 2.5."""
    actions = film.denoise(film.load_policy(2.5), seed=0)[-1]
    assert 0.55 < film.measure(actions, film.make_data())["edge"] < 0.65

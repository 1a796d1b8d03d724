"""The playground: it samples what PyTorch samples, and its controls and stops do what they say.

Headless Chromium (on Debian: apt-get install chromium) opens the page and runs a script in it.
"""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from toy_experiments.bandit import measure
from tutorials.making import playground
from tutorials.making.playground import policy_from_text

PAGE = playground.PAGE.read_text()
NETWORKS = playground.networks_of(PAGE)
LAST = len(NETWORKS["steps"]) - 1  # the last moment of the training
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")


def in_page(result, address=""):
    """Opens the page in Chromium, and returns what a JavaScript expression is worth there."""
    if BROWSER is None:
        pytest.skip("no Chromium to run the page in")
    script = f"document.body.innerHTML = `<pre>${{JSON.stringify({result})}}</pre>`;"
    Path("copy.html").write_text(PAGE.replace("</body>", f"<script>{script}</script></body>"))
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--force-prefers-reduced-motion", "--virtual-time-budget=60000"]
    command.append(Path("copy.html").resolve().as_uri() + address)
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    found = re.search(r"<pre>(.*)</pre>", done.stdout)
    assert found, done.stderr
    return json.loads(html.unescape(found[1]))


def test_the_page_is_the_template_with_the_networks_and_loads_nothing():
    template = (playground.HERE / "playground_template.html").read_text()
    before, after = template.split("NETWORKS" + playground.END)
    assert PAGE.startswith(before) and PAGE.endswith(playground.END + after)
    assert len(PAGE.encode()) <= 2_000_000
    assert not re.search(r"https?:|@import|url\(|fetch\(|<(link|img|iframe)|\bsrc=", PAGE)
    links = re.findall(r'notebook: "(.*?)"', PAGE)
    assert links and all((playground.PAGE.parent / link).exists() for link in links)


@pytest.mark.slow
@pytest.mark.parametrize("n", playground.N_TIMESTEPS)
def test_the_page_computes_what_sample_computes_on_the_same_noise(n):
    weights = NETWORKS["diffusion"][str(n)][LAST][-1]
    policy = policy_from_text(weights, n)
    torch.manual_seed(n)
    expected = policy.sample(torch.zeros(50, 0)).detach()
    torch.manual_seed(n)  # sample draws the start, then the noise of all steps but the last
    noise = [torch.randn(50, 2).flatten().tolist() for _ in range(n)]
    arrays = f"{json.dumps(noise)}.map((values) => Float32Array.from(values))"
    computed = in_page(f"[...denoise(unpack('{weights}', shapes.denoiser), {n}, {arrays})[{n}]]")
    torch.testing.assert_close(torch.tensor(computed).view(50, 2), expected, atol=1e-2, rtol=0)


@pytest.mark.slow
def test_an_address_opens_a_state_and_the_buttons_walk_along_the_chain():
    press = "$('back').click(), textOf(), $('forward').click(), textOf()"
    press = press.replace("textOf()", "$('chain-value').textContent")
    address = f"#eta=100&N=2&step={NETWORKS['steps'][0]}&acting=best&count=500&seed=3&heat=1"
    settings, _, after_back, _, after_forward = in_page(f"[settings, {press}]", address)
    chosen = {"eta": playground.ETAS.index(100), "N": 2, "moment": 0, "acting": "best"}
    assert chosen.items() <= settings.items()
    assert (settings["count"], settings["seed"], settings["heat"]) == (500, 3, True)
    assert (after_back, after_forward) == ("after step 1 of 2", "actions")


@pytest.mark.slow
def test_what_the_answers_of_the_stops_say():
    def after(stop, **changes):
        return f"(goToStop({stop - 1}), change({changes}, 99), measure(frames.at(-1), shown))"

    rows = [after(1, method=name) for name in ("Gaussian", "MMD", "CVAE")]
    rows += [after(2, N=n) for n in (2, 5, 50)]
    rows += [after(3), after(4), after(4, eta=4), after(5, moment=0), after(5, moment=LAST)]
    rows += [after(6, acting=rule) for rule in ("raw", "softmax", "best")]
    numbers = in_page(f"[{', '.join(rows)}]")
    gaussian, mmd, cvae, two, five, fifty = [row["onMode"] for row in numbers[:6]]
    guided, greedy, usual, early, late = numbers[6:11]
    assert gaussian < 0.1 < mmd < cvae < 0.9 and two < 0.05 and fifty > 0.95
    actions = policy_from_text(NETWORKS["diffusion"]["5"][LAST][0], 5).sample(torch.zeros(2000, 0))
    assert five == pytest.approx(measure(actions.detach())["on_mode"], abs=0.04)
    assert guided["best"] > 0.7 and guided["reward"] > 2.38
    assert greedy["reward"] < usual["reward"] - 0.5 and greedy["edge"] > usual["edge"] + 0.1
    assert early["edge"] > 0.5 and late["edge"] < 0.1 and late["best"] > 0.7
    raw, softmax, best = [row["reward"] for row in numbers[11:]]
    assert raw < softmax < best and best > 4.75

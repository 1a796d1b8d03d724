"""The playground: the page samples what PyTorch samples, and its controls do what they say.

Headless Chromium opens the page, moves its controls as a user does, and reads what is shown. Where
there is no Chromium (on Debian: apt-get install chromium), those tests are skipped.
"""

import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffusion_ql import Denoiser
from tutorials import make_playground
from tutorials.make_playground import ETAS, N_TIMESTEPS, WIDTH, Denoisers, policy_from_text

TUTORIALS = Path(make_playground.__file__).parent
PAGE = (TUTORIALS / "playground.html").read_text()
NETWORKS = make_playground.networks_of(PAGE)
LAST = len(NETWORKS["steps"]) - 1  # the last moment of the training
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium to run the page in")

# What the scripts below use: they move a control as a user does, and read what is shown.
TOOLS = """
    const find = (selector) => document.querySelector(selector);
    const textOf = (id) => find(`#${id}`).textContent;
    const click = (id) => find(`#${id}`).click();
    const choose = (group, value) => find(`input[name="${group}"][value="${value}"]`).click();
    const press = (key) => document.body.dispatchEvent(
        new KeyboardEvent("keydown", { key, bubbles: true }));
    function slide(id, value) {
        find(`#${id}`).value = value;
        find(`#${id}`).dispatchEvent(new Event("input"));
    }
    function numbers() {
        const cells = [...document.querySelectorAll("#numbers tr:first-child td")];
        const [onMode, best, reward, edge] = cells.map((cell) => parseFloat(cell.textContent));
        return [onMode / 100, best / 100, reward / 5, edge / 100];
    }
    function changesPicture(id) {
        const before = find("#picture").toDataURL();
        click(id);
        return find("#picture").toDataURL() !== before;
    }
    function finish(result) {
        const place = document.createElement("pre");
        place.id = "result";
        place.textContent = JSON.stringify(result);
        document.body.append(place);
    }
"""


def in_page(script, page=PAGE, address=""):
    """Opens the page in Chromium, runs a script in it, and returns what it gives to `finish`."""
    guarded = f"try {{ {script} }} catch (error) {{ finish({{ error: String(error) }}); }}"
    copy = Path("copy.html").resolve()
    copy.write_text(page.replace("</body>", f"<script>{TOOLS}\n{guarded}</script></body>"))
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu"]
    command += ["--force-prefers-reduced-motion", "--window-size=1280,800"]
    command += ["--virtual-time-budget=60000", "--dump-dom", f"{copy.as_uri()}{address}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    found = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    result = json.loads(html.unescape(found[1]))
    assert "error" not in result, result
    return result


# ---- Making the page -----------------------------------------------------------------------------
def test_denoisers_side_by_side_are_each_their_own_and_survive_as_text():
    torch.manual_seed(0)
    networks = [Denoiser(2, 2, WIDTH) for _ in range(3)]
    together = Denoisers(networks)
    x = torch.randn(12, 2)
    state = torch.zeros(12, 2)  # the bandit's only state, so that the page may leave it out
    t = torch.randint(5, (12,))
    for k, network in enumerate(networks):
        own = slice(4 * k, 4 * k + 4)
        expected = network(x[own], t[own], state[own])
        torch.testing.assert_close(together(x, t, state)[own], expected)
    again = policy_from_text(make_playground.denoiser_text(together.state_dict_of(1)), 5)
    expected = networks[1](x, t, state)
    torch.testing.assert_close(again.model(x, t, state[:, :0]), expected, atol=0.01, rtol=0)


@needs_browser
@pytest.mark.slow
def test_the_command_trains_and_writes_a_page_that_runs():
    command = [sys.executable, make_playground.__file__, "--out", "page.html"]
    subprocess.run([*command, "--steps", "20"], check=True, capture_output=True)
    page = Path("page.html").read_text()
    of_etas = make_playground.networks_of(page)["diffusion"]["5"][LAST]
    assert len(set(of_etas)) == len(ETAS)
    subprocess.run([*command, "--no-train"], check=True, capture_output=True)
    assert Path("page.html").read_text() == page
    assert in_page("finish(textOf('moment-value'));", page) == "step 20"


def test_the_page_is_the_template_with_the_networks_and_loads_nothing():
    template = (TUTORIALS / "playground_template.html").read_text()
    before, after = template.split("NETWORKS" + make_playground.END)
    assert PAGE.startswith(before) and PAGE.endswith(make_playground.END + after)
    assert len(PAGE.encode()) <= 2_000_000
    assert not re.search(r"https?:|//cdn|@import|url\(|fetch\(|XMLHttpRequest|import\(", PAGE)
    assert not re.search(r"<(link|img|iframe|script)[^>]*\b(src|href)=", PAGE)
    links = re.findall(r'notebook: "(.*?)"', PAGE)
    assert links and all((TUTORIALS / link).exists() for link in links)


# ---- Numbers -------------------------------------------------------------------------------------
@needs_browser
@pytest.mark.slow
def test_the_page_computes_what_sample_computes_on_the_same_noise():
    expected = []
    cases = []
    for n in N_TIMESTEPS:
        for seed, weights in enumerate(NETWORKS["diffusion"][str(n)][LAST]):
            policy = policy_from_text(weights, n)
            torch.manual_seed(seed)
            expected.append(policy.sample(torch.zeros(50, 0)).detach())
            torch.manual_seed(seed)  # sample draws the start, then the noise of all steps but one
            noise = [torch.randn(50, 2).flatten().tolist() for _ in range(n)]
            cases.append({"n": n, "weights": weights, "noise": noise})
    computed = in_page(f"""
        finish({json.dumps(cases)}.map(({{ n, weights, noise }}) => {{
            const arrays = noise.map((values) => Float32Array.from(values));
            return [...denoise(unpack(weights, shapes.denoiser), n, arrays)[n]];
        }}));
    """)
    computed = torch.tensor(computed).view(-1, 50, 2)
    torch.testing.assert_close(computed, torch.stack(expected), atol=1e-2, rtol=0)


# ---- Controls ------------------------------------------------------------------------------------
@needs_browser
@pytest.mark.slow
def test_the_buttons_do_what_they_say():
    page = in_page("""
        // Headless, frames come at no fixed rate: here, every 80 ms.
        window.requestAnimationFrame = (draw) => setTimeout(() => draw(performance.now()), 80);
        const changes = ["again", "heat", "data", "follow", "theme"].map(changesPicture);
        const path = textOf("path-text");
        const places = [textOf("chain-value")];
        const moves = [
            () => slide("chain", 0),
            () => click("forward"),
            () => click("back"),
            () => press("ArrowRight"),
            () => press("ArrowLeft"),
        ];
        for (const move of moves) {
            move();
            places.push(textOf("chain-value"));
        }
        const buttons = [" ", " ", " "].map((key) => {
            press(key);
            return textOf("play");
        });
        const watch = setInterval(() => {
            if (textOf("play") === "pause") return;
            clearInterval(watch);
            places.push(textOf("chain-value"));
            finish({ places, changes, path, buttons });
        }, 50);
    """)
    step = "after step 1 of 5"
    assert page["changes"] == [True] * 5
    assert "Q of the noise" in page["path"]
    assert page["places"] == ["actions", "noise", step, "noise", step, "noise", "actions"]
    assert page["buttons"] == ["pause", "play", "pause"]


@needs_browser
@pytest.mark.slow
def test_an_address_opens_a_state_and_its_seed_fixes_the_samples():
    script = "finish({ settings, numbers: numbers(), theme: document.documentElement.dataset });"
    address = f"#eta=100&N=2&step={NETWORKS['steps'][0]}&method=diffusion&acting=best&count=500"
    address += "&heat=1&data=0&seed=3&theme=dark"
    page = in_page(script, address=address)
    choices = {"method": "diffusion", "acting": "best", "heat": True, "data": False}
    of_numbers = {"eta": ETAS.index(100), "N": 2, "moment": 0, "count": 500, "seed": 3}
    assert page["settings"] == {**choices, **of_numbers}
    assert page["theme"] == {"theme": "dark"}
    assert in_page(script, address=address) == page


@needs_browser
@pytest.mark.slow
def test_what_the_answers_of_the_stops_say():
    page = in_page("""
        const stops = [...document.querySelectorAll("#stop-buttons button")];
        function after(stop, control, name, value) {
            stops[stop - 1].click();
            if (control) control(name, value);
            slide("chain", 99);
            return numbers();
        }
        finish({
            methods: ["Gaussian", "CVAE", "MMD"].map((name) => after(1, choose, "method", name)),
            steps: [2, 5, 50].map((n) => after(2, choose, "N", n)),
            guided: after(3),
            greedy: after(4),
            usual: after(4, slide, "eta", 4),
            early: after(5),
            late: after(5, slide, "moment", 4),
            acting: ["raw", "softmax", "best"].map((rule) => after(6, choose, "acting", rule)),
        });
    """)
    on_mode, best, reward, edge = range(4)
    gaussian, cvae, mmd = [numbers[on_mode] for numbers in page["methods"]]
    assert gaussian < 0.1 < mmd < cvae < 0.9
    two, five, fifty = [numbers[on_mode] for numbers in page["steps"]]
    assert two < 0.05 and 0.4 < five < 0.6 and fifty > 0.95
    policy = policy_from_text(NETWORKS["diffusion"]["5"][LAST][0], 5)  # as PyTorch counts it
    corners = torch.tensor(NETWORKS["corners"])
    nearest = torch.cdist(policy.sample(torch.zeros(2000, 0)), corners).amin(1)
    assert five == pytest.approx((nearest < NETWORKS["radius"]).float().mean().item(), abs=0.04)
    assert page["guided"][best] > 0.7 and page["guided"][reward] > 2.38 / 5
    assert page["greedy"][reward] < page["usual"][reward] - 0.1
    assert page["greedy"][edge] > page["usual"][edge] + 0.1
    assert page["early"][edge] > 0.5
    assert page["late"][edge] < 0.1 and page["late"][best] > 0.7
    raw, softmax, best_of_50 = [numbers[reward] for numbers in page["acting"]]
    assert raw < softmax < best_of_50 and best_of_50 > 0.95

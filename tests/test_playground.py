"""The playground: its page computes what diffusion_ql.py does, and its controls and answers hold.

The page is run in headless Chromium, driven by events on its real controls. Where there is no
Chromium (on Debian: apt-get install chromium), these tests are skipped.
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
import torch.nn as nn

from diffusion_ql import Denoiser, DiffusionPolicy, DoubleCritic
from toy_experiments import bandit
from toy_experiments.cloning import CVAE, exact_policy
from toy_experiments.guided import GuidedDiffusion

TUTORIALS = Path(__file__).resolve().parents[1] / "tutorials"
sys.path.insert(0, str(TUTORIALS))

import make_playground  # noqa: E402
from make_playground import (  # noqa: E402
    ETAS,
    N_TIMESTEPS,
    WIDTH,
    Denoisers,
    denoiser_text,
    guided_loss,
    networks_of,
    numbers,
    policy_from_text,
    text,
    train_critics,
)

PAGE = (TUTORIALS / "playground.html").read_text()
NETWORKS = networks_of(PAGE)
METHODS = ["diffusion", "Gaussian", "CVAE", "MMD"]
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium to run the page in")

# What the tests' scripts use: they move a control as a user does, and read what is shown.
TOOLS = """
    const find = (selector) => document.querySelector(selector);
    function slide(id, value) {
        find(`#${id}`).value = value;
        find(`#${id}`).dispatchEvent(new Event("input", { bubbles: true }));
    }
    function choose(group, value) { find(`input[name="${group}"][value="${value}"]`).click(); }
    function click(id) { find(`#${id}`).click(); }
    function press(key, target = document.body) {
        const how = { key, bubbles: true, cancelable: true };
        target.dispatchEvent(new KeyboardEvent("keydown", how));
    }
    function row() {
        const cells = [...document.querySelectorAll("#numbers tr:first-child td")];
        return cells.map((cell) => cell.textContent);
    }
    function onScreen() { return shown.map((i) => nowAt(i)); }
    function pixels() { return find("#picture").toDataURL(); }
    function finish(result) {
        const place = document.createElement("pre");
        place.id = "result";
        place.textContent = JSON.stringify(result);
        document.body.append(place);
    }
    const errors = [];
    window.addEventListener("error", (event) => errors.push(event.message));
"""


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


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


# ---- The networks --------------------------------------------------------------------------------
def test_denoisers_side_by_side_are_each_their_own():
    networks = [Denoiser(2, 2, WIDTH) for _ in range(3)]
    together = Denoisers(networks)
    x = torch.randn(12, 2)
    state = torch.randn(12, 2)
    t = torch.randint(5, (12,))
    expected = [
        net(x[4 * k :][:4], t[4 * k :][:4], state[4 * k :][:4]) for k, net in enumerate(networks)
    ]
    torch.testing.assert_close(together(x, t, state), torch.cat(expected))
    one_step = torch.tensor([3])
    expected = [net(x[4 * k :][:4], one_step, state[4 * k :][:4]) for k, net in enumerate(networks)]
    torch.testing.assert_close(together(x, one_step, state), torch.cat(expected))
    again = Denoiser(2, 2, WIDTH)
    again.load_state_dict(together.state_dict_of(1))
    torch.testing.assert_close(again(x, t, state), networks[1](x, t, state))


def test_the_loss_is_the_mean_of_the_guided_losses(monkeypatch):
    """Of identical networks on the same noise, with an eta each."""
    networks = [Denoiser(2, 2, WIDTH)] * len(ETAS)
    policy = DiffusionPolicy(2, 2, 3, WIDTH)
    policy.model = Denoisers(networks)
    batch = bandit.make_data(7)
    critic = DoubleCritic(2, 2, 16)
    noise = torch.randn(7, 2)
    monkeypatch.setattr(torch, "randn", lambda n, width, device: noise.repeat(n // 7, 1))
    monkeypatch.setattr(torch, "randn_like", lambda x: noise.repeat(len(x) // 7, 1))
    monkeypatch.setattr(torch, "randint", lambda high, shape, device: torch.ones(shape).long())
    monkeypatch.setattr(torch, "rand", lambda shape: torch.tensor(0.3))
    expected = []
    for eta in ETAS:
        alone = GuidedDiffusion(3)
        alone.model = networks[0]
        alone.eta = eta
        expected.append(alone.guided_loss(batch, critic))
    torch.testing.assert_close(guided_loss(policy, batch, critic), torch.stack(expected).mean())


def test_every_policy_meets_the_same_critics():
    quiet = [critic.q1_model[0].weight.clone() for _, _, critic in train_critics(3, seed=1)]
    busy = []
    for _, _, critic in train_critics(3, seed=1):
        torch.randn(100)  # as a policy's loss draws noise
        busy.append(critic.q1_model[0].weight.clone())
    assert torch.equal(torch.stack(quiet), torch.stack(busy))
    assert not torch.equal(quiet[0], quiet[2])


def test_a_network_without_the_states_columns_samples_the_same_actions():
    """The bandit's state is zero, so its columns do nothing; half precision costs below 1e-2."""
    policy = DiffusionPolicy(2, 2, 5, WIDTH)
    again = policy_from_text(denoiser_text(policy.model.state_dict()), 5)
    torch.manual_seed(1)
    expected = policy.sample(torch.zeros(500, 2))
    torch.manual_seed(1)
    torch.testing.assert_close(again.sample(torch.zeros(500, 0)), expected, atol=1e-2, rtol=0)


def test_numbers_survive_as_text():
    tensors = [torch.randn(3, 2), torch.randn(4)]
    expected = torch.cat([tensor.flatten() for tensor in tensors])
    torch.testing.assert_close(numbers(text(tensors)), expected, atol=1e-3, rtol=1e-3)


@needs_browser
def test_the_script_trains_and_writes_a_page_that_runs():
    command = [sys.executable, TUTORIALS / "make_playground.py", "--out", "page.html"]
    subprocess.run([*command, "--steps", "20"], check=True, capture_output=True)
    page = Path("page.html").read_text()
    trained = networks_of(page)
    assert trained["steps"] == [1, 4, 8, 12, 20]
    assert len(set(trained["diffusion"]["5"][4])) == len(ETAS)
    subprocess.run([*command, "--no-train"], check=True, capture_output=True)
    assert Path("page.html").read_text() == page
    shown = in_page("finish({ numbers: row(), moment: find('#moment-value').textContent });", page)
    assert len(shown["numbers"]) == 4
    assert shown["moment"] == "step 20"


# ---- The page as a file --------------------------------------------------------------------------
def test_the_page_is_small_and_loads_nothing():
    assert len(PAGE.encode()) <= 2_000_000
    assert not re.search(r"https?:|//cdn|@import|url\(|fetch\(|XMLHttpRequest|import\(", PAGE)
    assert not re.search(r"<(link|img|iframe|script)[^>]*\b(src|href)=", PAGE)


def test_the_page_is_the_template_with_the_networks():
    template = (TUTORIALS / "playground_template.html").read_text()
    before, after = template.split("NETWORKS" + make_playground.END)
    assert PAGE.startswith(before)
    assert PAGE.endswith(make_playground.END + after)


def test_the_notebooks_that_the_page_links_to_exist():
    links = re.findall(r'notebook: "(.*?)"', PAGE)
    assert len(links) == 6
    for link in links:
        assert (TUTORIALS / link).exists()


def test_the_page_holds_every_setting():
    assert tuple(NETWORKS["etas"]) == ETAS
    assert tuple(NETWORKS["N"]) == N_TIMESTEPS
    assert len(NETWORKS["steps"]) == 5
    for n in N_TIMESTEPS:
        moments = NETWORKS["diffusion"][str(n)]
        assert [len(moment) for moment in moments] == [len(ETAS)] * 5


# ---- Arithmetic ----------------------------------------------------------------------------------
@needs_browser
@pytest.mark.parametrize("n", N_TIMESTEPS)
def test_the_page_computes_what_sample_computes_on_the_same_noise(n):
    expected = []
    noise = []
    for index, weights in enumerate(NETWORKS["diffusion"][str(n)][-1]):
        policy = policy_from_text(weights, n)
        torch.manual_seed(index)
        with torch.no_grad():
            expected.append(policy.sample(torch.zeros(100, 0)))
        torch.manual_seed(
            index
        )  # sample draws: the start, then the noise of each step but the last
        noise.append([torch.randn(100, 2).flatten().tolist() for _ in range(n)])
    computed = in_page(f"""
        const noise = {json.dumps(noise)};
        finish(noise.map((ofPolicy, eta) => {{
            const layers = unpack(NETWORKS.diffusion[{n}][4][eta], shapes.denoiser);
            const arrays = ofPolicy.map((values) => Float32Array.from(values));
            return [...denoise(layers, {n}, arrays)[{n}]];
        }}));
    """)
    computed = torch.tensor(computed).view(len(ETAS), 100, 2)
    torch.testing.assert_close(computed, torch.stack(expected), atol=1e-2, rtol=0)


@needs_browser
def test_the_page_computes_q_cvae_and_measures_as_python_does():
    critic = DoubleCritic(0, 2, make_playground.CRITIC_WIDTH)
    q1, q2 = NETWORKS["critics"][2]
    nn.utils.vector_to_parameters(numbers(q1), critic.q1_model.parameters())
    nn.utils.vector_to_parameters(numbers(q2), critic.q2_model.parameters())
    decoder = CVAE(state_dim=0, hidden_dim=64).decoder
    nn.utils.vector_to_parameters(numbers(NETWORKS["CVAE"][4]), decoder.parameters())
    actions = 2 * torch.rand(300, 2) - 1
    actions[:200] = bandit.make_data(200).action
    latent = torch.randn(50, 4)
    page = in_page(f"""
        const actions = Float32Array.from({actions.flatten().tolist()});
        const latent = Float32Array.from({latent.flatten().tolist()});
        finish({{
            q: [...lowerQ(criticsOf(2), actions)],
            decoded: [...mlp(unpack(NETWORKS.CVAE[4], shapes.decoder), latent).map(Math.tanh)],
            measured: measure(actions, allOf(actions)),
        }});
    """)
    with torch.no_grad():
        q = torch.minimum(*critic(torch.zeros(300, 0), actions))
        decoded = decoder(latent)
    torch.testing.assert_close(torch.tensor(page["q"]), q[:, 0], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(torch.tensor(page["decoded"]), decoded.flatten(), atol=1e-3, rtol=0)
    expected = bandit.measure(actions, bandit.make_data())
    assert page["measured"]["onMode"] == pytest.approx(expected["on_mode"], abs=1e-4)
    assert page["measured"]["best"] == pytest.approx(expected["best_corner"], abs=1e-4)
    assert page["measured"]["reward"] == pytest.approx(expected["reward"], abs=1e-4)
    assert page["measured"]["edge"] == pytest.approx(expected["edge"], abs=1e-4)


# ---- Controls ------------------------------------------------------------------------------------
@needs_browser
def test_policy_eta_n_and_moment_choose_the_network():
    """After each move, what is on the screen is what that network makes of the seed's noise."""
    page = in_page("""
        function expected(N, moment, eta) {
            const random = randomNumbers(1);
            const noise = Array.from({ length: N }, () => gaussians(random, 2 * POOL));
            const layers = unpack(NETWORKS.diffusion[N][moment][eta], shapes.denoiser);
            return [...denoise(layers, N, noise)[N].subarray(0, 2000)];
        }
        const same = (values) => JSON.stringify(onScreen().flat()) === JSON.stringify(values);
        const seen = {};
        slide("eta", 6);
        seen.eta = same(expected(5, 4, 6));
        seen.etaText = find("#eta-value").textContent;
        choose("N", 10);
        seen.N = same(expected(10, 4, 6));
        slide("moment", 1);
        seen.moment = same(expected(10, 1, 6));
        const first = (someCritics) => JSON.stringify([...someCritics[0][0].weight]);
        seen.critics = [1, 4].map((moment) => first(critics) === first(criticsOf(moment)));
        seen.momentText = find("#moment-value").textContent;
        seen.frames = frames.length;
        finish(seen);
    """)
    assert page == {
        "eta": True,
        "etaText": "100",
        "N": True,
        "moment": True,
        "critics": [True, False],
        "momentText": f"step {NETWORKS['steps'][1]:,}",
        "frames": 11,
    }


@needs_browser
def test_the_other_policies_sample_what_was_trained_and_switch_off_what_they_lack():
    page = in_page("""
        const seen = {};
        for (const method of ["diffusion", "Gaussian", "CVAE", "MMD"]) {
            choose("method", method);
            choose("count", 2000);
            slide("eta", 0);
            seen[method] = { actions: onScreen(), frames: frames.length, eta: find("#eta").disabled,
                N: find("#N-field").disabled, name: find("#sample-name").textContent,
                note: find("#method-note").textContent };
        }
        choose("method", "Gaussian");
        slide("eta", 4);
        seen.guided = find("#method-note").textContent;
        finish(seen);
    """)
    assert [page[method]["frames"] for method in METHODS] == [6, 2, 2, 2]
    assert [page[method]["eta"] for method in METHODS] == [False, False, True, True]
    assert [page[method]["N"] for method in METHODS] == [False, True, True, True]
    for method, name in zip(METHODS, ["Diffusion", "Gaussian", "CVAE", "MMD"], strict=True):
        assert page[method]["name"] == f"2,000 samples: {name}"
        assert torch.tensor(page[method]["actions"]).abs().max() <= 1
    for method in ("Gaussian", "MMD"):
        trained = NETWORKS[method][4]
        if method == "Gaussian":
            trained = trained[0]
        mean, std = torch.tensor(trained)
        normal = torch.distributions.Normal(mean, std)
        expected = normal.sample((20_000,))
        expected = expected.tanh() if method == "MMD" else expected.clamp(-1, 1)
        actions = torch.tensor(page[method]["actions"])
        torch.testing.assert_close(actions.mean(0), expected.mean(0), atol=0.06, rtol=0)
        torch.testing.assert_close(actions.std(0), expected.std(0), atol=0.04, rtol=0)
    assert "clones the data" in page["Gaussian"]["note"]
    assert "TD3+BC" in page["guided"]


@needs_browser
def test_acting_chooses_by_q():
    page = in_page("""
        slide("eta", 0);
        choose("count", 2000);
        const q = lowerQ(critics, frames[lastFrame()]);
        const seen = {};
        for (const rule of ["raw", "softmax", "best"]) {
            choose("acting", rule);
            seen[rule] = { q: shown.map((i) => q[i]), numbers: row() };
        }
        seen.pool = [...q];
        seen.note = find("#acting-note").textContent;
        finish(seen);
    """)
    pool = torch.tensor(page["pool"])
    assert page["raw"]["q"] == page["pool"]
    candidates = pool[torch.randint(2000, (20_000, 50))]
    best = torch.tensor(page["best"]["q"])
    assert best.mean() == pytest.approx(candidates.amax(dim=1).mean().item(), abs=0.05)
    softmax = torch.tensor(page["softmax"]["q"])
    expected = (candidates.softmax(dim=1) * candidates).sum(dim=1).mean().item()
    assert softmax.mean() == pytest.approx(expected, abs=0.1)
    assert pool.mean() < softmax.mean() < best.mean()
    assert page["raw"]["numbers"] != page["softmax"]["numbers"] != page["best"]["numbers"]
    assert "50 candidates" in page["note"] and "2,000 samples" in page["note"]


@needs_browser
def test_the_chain_is_played_paused_and_stepped():
    page = in_page("""
        // Headless, frames come at no fixed rate: here, every 80 ms.
        window.requestAnimationFrame = (draw) => setTimeout(() => draw(performance.now()), 80);
        const seen = { end: position };
        const at = () => [position, find("#chain").value, find("#chain-value").textContent];
        slide("chain", 0);
        seen.noise = at();
        seen.noiseRow = row();
        seen.start = onScreen()[0];
        seen.drawn = [gaussians(randomNumbers(1), 2)].map((x) => [...x])[0];
        click("forward");
        seen.forward = at();
        seen.stepRow = row();
        click("back");
        seen.back = at();
        click("back");
        seen.rim = at();
        press("ArrowRight");
        press("ArrowRight");
        seen.right = at();
        press("ArrowLeft");
        seen.left = at();
        press("ArrowRight", find("#eta"));
        press(" ", find("#again"));
        seen.native = [...at(), playing];
        press(" ");
        seen.space = [playing, find("#play").textContent];
        press(" ");
        seen.paused = [playing, find("#play").textContent, Number.isInteger(position)];
        click("play");
        const moving = [];
        const watch = setInterval(() => {
            moving.push(position);
            if (playing) return;
            clearInterval(watch);
            seen.moving = moving;
            seen.played = at();
            finish(seen);
        }, 50);
    """)
    assert page["end"] == 5
    assert page["noise"] == [0, "0", "noise"]
    assert page["start"] == page["drawn"]
    assert page["forward"] == [1, "1", "after step 1 of 5"]
    assert page["noiseRow"] != page["stepRow"]
    assert page["back"] == page["rim"] == page["noise"]
    assert page["right"][0] == 2
    assert page["left"][0] == 1
    assert page["native"][0] == 1 and page["native"][-1] is False
    assert page["space"] == [True, "pause"]
    assert page["paused"] == [False, "play", True]
    assert page["moving"] == sorted(page["moving"])
    assert any(place % 1 for place in page["moving"])  # between two steps
    assert page["played"] == [5, "5", "actions"]


@needs_browser
def test_a_clicked_sample_shows_its_path_and_its_q():
    page = in_page("""
        const seen = { before: find("#path").hidden };
        const canvas = find("#picture");
        const plain = pixels();
        const [x, y] = onScreen()[17];
        const box = canvas.getBoundingClientRect();
        const clientX = box.left + box.width * (x / VIEW + 1) / 2;
        const clientY = box.top + box.height * (1 - y / VIEW) / 2;
        canvas.dispatchEvent(new MouseEvent("click", { clientX, clientY, bubbles: true }));
        seen.distance = Math.hypot(nowAt(followed)[0] - x, nowAt(followed)[1] - y);
        seen.after = find("#path").hidden;
        seen.drawn = pixels() !== plain;
        seen.points = find("#path polyline").getAttribute("points").split(" ").length;
        seen.text = find("#path-text").textContent;
        const places = frames.map((frame) => frame.subarray(2 * followed, 2 * followed + 2));
        seen.q = places.map((place) => lowerQ(critics, place)[0]);
        click("follow");
        seen.off = find("#path").hidden;
        click("follow");
        seen.on = [find("#path").hidden, followed === shown[0]];
        finish(seen);
    """)
    assert page["before"] and not page["after"]
    assert page["distance"] < 0.01
    assert page["drawn"]
    assert page["points"] == 6
    assert f"Q of the noise: {page['q'][0]:.2f}, of the action: {page['q'][5]:.2f}" in page["text"]
    assert page["off"] and page["on"] == [False, True]


@needs_browser
def test_what_is_drawn_and_how_many():
    page = in_page("""
        const seen = {};
        const plain = pixels();
        click("heat");
        seen.heat = [settings.heat, pixels() !== plain, find("#heat-legend").hidden];
        seen.range = [Number(find("#q-low").textContent), Number(find("#q-high").textContent)];
        seen.corner = lowerQ(critics, Float32Array.from([0.8, -0.8]))[0];
        click("heat");
        seen.plain = pixels() === plain;
        click("data");
        seen.data = [settings.data, pixels() !== plain, find("#data-legend").hidden];
        click("data");
        choose("count", 500);
        seen.few = onScreen().length;
        choose("count", 2000);
        seen.many = onScreen().length;
        const before = JSON.stringify(onScreen());
        click("again");
        seen.again = [JSON.stringify(onScreen()) !== before, find("#seed-value").textContent];
        const light = pixels();
        const theme = document.documentElement.dataset.theme;
        click("theme");
        seen.theme = [theme, document.documentElement.dataset.theme, pixels() !== light];
        seen.loaded = performance.getEntriesByType("resource").length;
        finish(seen);
    """)
    assert page["heat"] == [True, True, False]
    assert page["range"][0] < page["corner"] <= page["range"][1] + 0.05
    assert page["plain"]
    assert page["data"] == [False, True, True]
    assert (page["few"], page["many"]) == (500, 2000)
    assert page["again"] == [True, "seed 2"]
    assert set(page["theme"][:2]) == {"light", "dark"} and page["theme"][2]
    assert page["loaded"] == 0


@needs_browser
def test_an_address_opens_a_state_and_a_seed_fixes_it():
    address = f"#eta=100&N=2&step={NETWORKS['steps'][0]}&method=diffusion&acting=best&count=500"
    address += "&heat=1&data=0&seed=3&theme=dark"
    script = "finish({ settings, row: row(), theme: document.documentElement.dataset.theme });"
    page = in_page(script, address=address)
    assert page["theme"] == "dark"
    assert page["settings"] == {
        "method": "diffusion",
        "eta": 6,
        "N": 2,
        "moment": 0,
        "acting": "best",
        "count": 500,
        "heat": True,
        "data": False,
        "seed": 3,
    }
    assert in_page(script, address=address) == page
    start = in_page(script)
    assert in_page(script, address="#eta=7&N=3&stop=9&acting=worst&seed=-1")["row"] == start["row"]


@needs_browser
def test_every_control_has_a_name_and_is_reached_by_the_keyboard():
    page = in_page("""
        function nameOf(control) {
            if (control.labels?.length) return control.labels[0].textContent;
            return control.getAttribute("aria-label") ?? control.textContent;
        }
        const controls = [...document.querySelectorAll("button, input, summary, a")];
        finish(controls.map((control) => [nameOf(control), control.tabIndex]));
    """)
    assert len(page) > 25
    for name, tab_index in page:
        assert name.strip()
        assert tab_index >= 0, name


@needs_browser
def test_nothing_is_wider_than_the_screen():
    """On screens of these widths, in pixels."""
    widths = [320, 390, 800, 1280, 1920]
    text_of_page = json.dumps(PAGE).replace("<", r"\u003c")
    page = in_page(
        f"""
        const tooWide = [];
        for (const width of {widths}) {{
            const screen = document.createElement("iframe");
            screen.style.cssText = `width: ${{width}}px; height: 800px; border: 0`;
            screen.srcdoc = {text_of_page};
            screen.onload = () => {{
                const inside = screen.contentDocument.documentElement;
                tooWide.push(inside.scrollWidth - inside.clientWidth);
                if (tooWide.length === {len(widths)}) finish(tooWide);
            }};
            document.body.append(screen);
        }}
        """,
        page="<!doctype html><body></body>",
    )
    assert page == [0] * len(widths)


# ---- The stops: what their answers say is true of the samples that they show --------------------
@needs_browser
def test_a_stop_sets_the_controls_and_asks_before_it_tells():
    page = in_page("""
        const buttons = [...document.querySelectorAll("#stop-buttons button")];
        choose("method", "MMD");
        click("again");
        finish(buttons.map((button) => {
            button.click();
            return {
                name: button.textContent,
                question: find("#question").textContent,
                open: find("#answer").open,
                hidden: find("#answer").hidden,
                answer: find("#answer-text").textContent,
                link: find("#answer-text a").getAttribute("href"),
                pressed: document.querySelectorAll("#stop-buttons [aria-pressed=true]").length,
                settings: { ...settings },
            };
        }));
    """)
    assert len(page) == 6
    assert len({stop["question"] for stop in page}) == 6
    for stop in page:
        assert "?" in stop["question"]
        assert not stop["open"] and not stop["hidden"]
        assert len(stop["answer"]) > 100
        assert (TUTORIALS / stop["link"]).exists()
        assert stop["pressed"] == 1
        assert stop["settings"]["seed"] == 1
    assert [stop["settings"]["method"] for stop in page] == ["Gaussian"] + ["diffusion"] * 5
    assert [ETAS[stop["settings"]["eta"]] for stop in page] == [0, 0, 1, 100, 2.5, 0]


@needs_browser
def test_what_the_answers_say():
    page = in_page("""
        const buttons = [...document.querySelectorAll("#stop-buttons button")];
        const numbersNow = () => measure(frames[lastFrame()], shown);
        const seen = {};
        buttons[0].click();
        seen.gaussian = numbersNow();
        choose("method", "diffusion");
        choose("N", 50);
        seen.middle = {};
        for (const method of ["Gaussian", "CVAE", "MMD", "diffusion"]) {
            choose("method", method);
            seen.middle[method] = numbersNow();
        }
        buttons[1].click();
        seen.steps = {};
        for (const n of allN) {
            choose("N", n);
            seen.steps[n] = numbersNow();
        }
        buttons[2].click();
        seen.start = position;
        seen.guided = numbersNow();
        buttons[3].click();
        seen.greedy = numbersNow();
        const line = Array.from({ length: 201 }, (_, k) => k / 100 - 1);
        const edge = Float32Array.from(line.flatMap((along) => [1, along, along, -1]));
        seen.edgeQ = Math.max(...lowerQ(critics, edge));
        seen.cornerQ = lowerQ(critics, Float32Array.from([0.8, -0.8]))[0];
        slide("eta", etas.indexOf(2.5));
        seen.usual = numbersNow();
        buttons[4].click();
        seen.early = numbersNow();
        slide("moment", 4);
        seen.late = numbersNow();
        buttons[5].click();
        for (const rule of ["raw", "softmax", "best"]) {
            choose("acting", rule);
            seen[rule] = numbersNow();
        }
        finish(seen);
    """)
    assert page["gaussian"]["onMode"] < 0.1
    assert page["steps"]["2"]["onMode"] < 0.05
    assert 0.4 < page["steps"]["5"]["onMode"] < 0.6
    assert page["steps"]["50"]["onMode"] > 0.95
    for n in (2, 5, 50):  # "a perfect denoiser does hardly better"
        perfect = bandit.measure(bandit.sample(exact_policy(n)), bandit.make_data())
        assert perfect["on_mode"] < page["steps"][str(n)]["onMode"] + 0.1
    assert page["start"] == 0
    assert page["guided"]["best"] > 0.7
    assert page["guided"]["reward"] > 2.38
    assert page["greedy"]["reward"] < page["usual"]["reward"] - 0.5
    assert page["greedy"]["edge"] > page["usual"]["edge"] + 0.1
    assert page["edgeQ"] > page["cornerQ"]
    data = bandit.make_data(seed=NETWORKS["seed"])
    assert bandit.measure(data.action, data)["edge"] < 0.001
    assert page["early"]["edge"] > 0.5
    assert page["late"]["edge"] < 0.1
    assert page["late"]["best"] > 0.7
    assert page["raw"]["reward"] == pytest.approx(2.38, abs=0.2)
    assert page["raw"]["reward"] < page["softmax"]["reward"] < page["best"]["reward"]
    assert page["best"]["best"] > 0.95
    assert page["best"]["reward"] > 4.75

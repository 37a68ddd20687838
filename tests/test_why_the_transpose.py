"""notebooks/why_the_transpose.html in a real browser: what it computes and shows against JAX and nnjax, and how it is used."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nnjax
from nnjax import feedback, nielsen, ops, train
from nnjax.commands.explaining.numbers import Network, numbers, with_weights
from nnjax.commands.explaining.web import address, find_page

PAGE = find_page()
TEXT = PAGE.read_text()
WIDTHS = {360: 740, 1280: 800}
OPERATORS = {
    "transpose": feedback.transpose,
    "inverse": feedback.inverse,
    "pseudo_inverse": feedback.pseudo_inverse,
    "sign": feedback.sign_symmetric(),
}


@pytest.fixture(scope="module")
def open_at(chromium):
    """open_at(address, width=1280, **how): the page in a window of its own, from which no request but the first may go out."""
    windows = []

    def open_page(where=None, width=1280, **how):
        context = chromium.new_context(viewport={"width": width, "height": WIDTHS[width]}, **how)
        page = context.new_page()
        page.sent, page.faults = [], []
        page.on("request", lambda request: page.sent.append(request.url))
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on("console", lambda message: page.faults.append(message.text) if message.type in ("error", "warning") else None)
        windows.append((context, page))
        page.goto(where or PAGE.as_uri())
        return page

    yield open_page
    for context, page in windows:
        assert [url.partition("#")[0] for url in page.sent] == [PAGE.as_uri()]
        assert page.faults == []
        context.close()


@pytest.fixture(scope="module")
def page(open_at):
    """One window, for what leaves it as it was."""
    return open_at()


def call(page, function, *args):
    """A function of the page's mathematics, of and to plain numbers; matrices as float64."""
    return page.evaluate(f"args => nnjax_page.{function}(...args)", list(args))


def lists(*arrays):
    return [np.asarray(a, np.float64).tolist() for a in arrays]


def shown(page, root="body"):
    """Every number that the page shows under a name, the first of each; all others of that name must be the same, and what is
    written must be what is meant, rounded."""
    found = page.eval_on_selector_all(
        f"{root} [data-name]", "all => all.map(e => [e.dataset.name, Number(e.dataset.value), e.textContent])"
    )
    named: dict[str, float] = {}
    for name, value, text in found:
        assert named.setdefault(name, value) == value, name
        written = float(text.replace("−", "-"))
        decimals = len(text.partition("e")[0].partition(".")[2])
        size = 10 ** (math.floor(math.log10(abs(value))) - decimals) if "e" in text else 10.0**-decimals
        assert abs(written - value) <= 0.501 * size, (name, value, text)
    return named


def close(found, wanted, tolerance=1e-9):
    """Within this share of the largest: both are of float64. What the page measures by nudges is right to 1e-5."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max(initial=0.0) <= tolerance * max(1.0, np.abs(wanted).max(initial=0.0)), (found, wanted)


# The file


def test_the_page_is_one_small_file_in_which_no_address_stands():
    assert len(TEXT.encode()) <= 200_000
    for loads in ("://", "src=", "url(/", "@import", "import(", "fetch(", "XMLHttpRequest", "srcset", "<iframe", "<object"):
        assert loads not in TEXT, loads
    assert set(re.findall(r'href="([^#"]*)', TEXT)) == {"", "data:,"}
    assert "default-src 'none'" in TEXT


def test_its_digits_are_those_of_the_package():
    text = re.search(r'id="digits">\n(.*?)\n</script>', TEXT, re.DOTALL)
    assert text
    images = text[1].split()
    data = train.load("digits")
    for part, split in ((images[:800], data.train), (images[800:], data.test)):
        x = np.array([[ord(c) - ord("a") for c in image[1:]] for image in part])
        np.testing.assert_array_equal(x, split.x[: len(part)].reshape(len(part), -1) * 16)
        assert [int(image[0]) for image in part] == list(split.y[: len(part)])
    assert len(images) == 1000


# The mathematics

TEN = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 10))]


def random_network(seed):
    rng = np.random.default_rng(seed)
    n_out, n_in = [(2, 2), (2, 2), (3, 3), (2, 3), (4, 2), (1, 1), (1, 3), (5, 1), (5, 5), (2, 2)][seed % 10]
    w, b, u, y = rng.normal(size=(n_out, n_in)), rng.normal(size=n_out), 2 * rng.normal(size=n_in), rng.random(n_out)
    if seed % 10 == 9:
        w[1] = -2 * w[0]  # singular
    return Network(nielsen.Params((w,), (b,)), u, y)


def as_page(net):
    w, b, u, y = lists(net.params.w[-1], net.params.b[-1], net.x, net.y)
    return {"w": w, "b": b, "u": u, "y": y}


def cost(params, u, y):
    """Written out for JAX, without nnjax."""
    (w,), (b,) = params
    out = jax.nn.sigmoid(w @ jax.nn.sigmoid(u) + b)
    return ((out - y) ** 2).sum() / 2


FIRST = random_network(0)


@pytest.mark.parametrize("seed", TEN)
@pytest.mark.in_turn
def test_a_network_forward_and_backward_by_every_carrier(page, seed, x64):
    net = random_network(seed)
    n, w = numbers(net), net.params.w[-1]
    forward, back = call(page, "forward", as_page(net)), call(page, "backward", as_page(net))
    for name, wanted in (("a", n.a), ("z", n.z_next), ("o", n.a_next), ("cost", n.cost)):
        close(forward[name], wanted)
    by_jax = jax.grad(cost, (0, 1))(net.params, jnp.asarray(net.x), jnp.asarray(net.y))
    close(back["error"], by_jax[1])
    close(back["by_w"], by_jax[0].w[0])
    close(back["delta"], by_jax[0].b[0])
    close(back["sent"], n.sent)
    close(call(page, "measured", as_page(net)), n.sent, 1e-5)
    for name, operator in OPERATORS.items():
        found = call(page, f"carriers.{name}", w.tolist())
        try:
            wanted = operator(jnp.asarray(w))
        except ValueError:
            assert found is None
            assert name == "inverse"
            continue
        close(found, wanted)
        sent = call(page, "backward", as_page(net), found)
        close(sent["sent"], wanted @ n.delta)
        close(sent["error"], (wanted @ n.delta) * n.slope)
        if np.linalg.norm(n.sent) and np.linalg.norm(wanted @ n.delta):
            close(call(page, "angle", sent["sent"], back["sent"]), feedback.angle(wanted @ n.delta, jnp.asarray(n.sent)))
    B = np.array(call(page, "carriers.random", w.tolist(), 3))
    assert B.shape == w.T.shape
    np.testing.assert_array_equal(B, call(page, "carriers.random", w.tolist(), 3))
    steps = call(page, "steps", as_page(net))
    assert sum(s["kind"] == "product" for s in steps) == 2 * w.size
    for name, wanted in (("z", n.z_next), ("o", n.a_next), ("delta", n.delta), ("sent", n.sent), ("error", n.by_sum)):
        close(steps[-1]["known"][name], wanted)


def test_its_random_numbers_are_normal_and_of_glorots_deviation(page):
    B = np.array(call(page, "carriers.random", np.zeros((60, 100)).tolist(), 5))
    np.testing.assert_allclose(B.std(), math.sqrt(2 / 160), rtol=0.03)
    assert abs(B.mean()) < 3 * B.std() / math.sqrt(B.size)
    assert 2.5 < np.mean((B / B.std()) ** 4) < 3.5
    params = call(page, "start", [64, 10, 10, 10])
    assert [np.shape(w) for w in params["w"]] == [(10, 64), (10, 10), (10, 10)]
    np.testing.assert_allclose(np.std(params["w"][0]), 1 / 8, rtol=0.1)


@pytest.mark.parametrize("seed", TEN)
@pytest.mark.slow
@pytest.mark.in_turn
def test_a_convolution_attention_and_batch_norm(page, seed, x64):
    rng = np.random.default_rng(seed)
    stride, taps = 1 + seed % 2, 1 + seed % 4
    x, kernel = rng.normal(size=5 + seed), rng.normal(size=taps)
    conv = nnjax.conv(1, 1, taps, stride=stride, padding="VALID", bias=False)
    params = conv.init(jax.random.key(0))._replace(w=jnp.asarray(kernel.reshape(taps, 1, 1)))
    y, residuals = conv.fwd(params, jnp.asarray(x.reshape(1, -1, 1)))
    ct = rng.normal(size=y.shape)
    ct_params, ct_x = conv.bwd(residuals, jnp.asarray(ct))
    close(call(page, "conv_forward", *lists(x, kernel), stride), y.ravel())
    back = call(page, "conv_backward", *lists(x, kernel, ct.ravel()), stride)
    close(back["by_x"], ct_x.ravel())
    close(back["by_w"], ct_params.w.ravel())
    m = np.array(call(page, "conv_matrix", *lists(kernel), len(x), stride), float)  # None is nan
    close(np.nan_to_num(m).T @ ct.ravel(), ct_x.ravel())

    q, k, v, ct = rng.normal(size=(4, 3 + seed % 3, 2))
    causal = bool(seed % 2)
    y, pull = jax.vjp(lambda *qkv: ops.attention(*(x[:, None] for x in qkv), causal=causal)[:, 0], *map(jnp.asarray, (q, k, v)))
    found = call(page, "attention_forward", *lists(q, k, v), causal)
    close(found["o"], y)
    close(np.sum(found["p"], 1), np.ones(len(q)))
    back = call(page, "attention_backward", *lists(q, k, v, ct), causal)
    for name, wanted in zip("qkv", pull(jnp.asarray(ct))):
        close(back[name], wanted)

    x, ct, gamma, beta = rng.normal(size=4 + seed), rng.normal(size=4 + seed), rng.normal(), rng.normal()
    norm = nnjax.batch_norm(1)
    params = norm.init(jax.random.key(0))._replace(scale=jnp.array([gamma]), offset=jnp.array([beta]))
    y, residuals = norm.fwd(params, jnp.asarray(x[:, None]))
    close(call(page, "norm_forward", x.tolist(), gamma, beta)["y"], y[:, 0])
    terms = call(page, "norm_terms", x.tolist(), gamma, ct.tolist())
    by_jax = jax.grad(lambda x: jnp.vdot(norm.apply(params, x[:, None])[:, 0], ct))(jnp.asarray(x))
    close(sum(np.array(t) for t in terms.values()), by_jax)
    close(call(page, "norm_measured", x.tolist(), gamma, ct.tolist()), by_jax, 1e-5)
    close(terms["straight"], gamma / np.sqrt(x.var() + 1e-5) * ct)


TRAINED = """([sizes, epochs, own]) => {
  const page = nnjax_page, { batch, train: n } = page.TRAINING, rate = own ?? page.TRAINING.rate;
  const { x, labels } = page.decode(document.getElementById("digits").textContent);
  const [train, test] = [[0, n], [n, x.length]].map(([a, b]) => ({ x: x.slice(a, b), labels: labels.slice(a, b) }));
  const start = page.start(sizes), carriers = page.training_carriers(start), curves = {};
  const back = start.w.map((w, l) => carriers.random(w, l));
  for (const [name, carrier] of Object.entries(carriers)) {
    const net = structuredClone(start);
    curves[name] = [];
    for (let e = 0; e < epochs && page.epoch(net, carrier, train, rate, batch); e++)
      curves[name].push([page.mean_cost(net, train), page.share_right(net, test)]);
  }
  return { start, back, curves, rate, batch };
}"""


def trained_by_nnjax(found, carrier, epochs):
    """The cost and the share of right ones after each epoch, from the page's first numbers, by nnjax.nielsen."""
    data = train.load("digits")
    x = jnp.asarray(data.train.x[:800].reshape(800, 64), jnp.float64)
    y = jax.nn.one_hot(data.train.y[:800], 10, dtype=jnp.float64)
    test_x = jnp.asarray(data.test.x[:200].reshape(200, 64).T, jnp.float64)
    f = nielsen.value_and_grad(nielsen.cross_entropy, send_back=carrier)
    batches = jax.tree.map(lambda a: a.reshape(-1, found["batch"], a.shape[-1]), (x, y))

    def step(params, batch):
        return jax.tree.map(lambda p, g: p - found["rate"] * g, params, f(params, *batch)[1]), None

    epoch = jax.jit(lambda params: jax.lax.scan(step, params, batches)[0])
    start = found["start"]
    params, curve = nielsen.Params(*(tuple(map(jnp.asarray, start[name])) for name in "wb")), []
    value = jax.jit(nielsen.objective(nielsen.cross_entropy))
    for _ in range(epochs):
        params = epoch(params)
        right = np.asarray(nielsen.feedforward(params, test_x)).argmax(0) == data.test.y[:200]
        curve.append([value(params, x, y), right.mean()])
    return np.array(curve)


def held_against_nnjax(page, sizes, epochs, names):
    found = page.evaluate(TRAINED, [sizes, epochs])
    carriers = {"random": [jnp.asarray(B) for B in found["back"][1:]], "transpose": feedback.transpose, **OPERATORS}
    for name in names:
        wanted = trained_by_nnjax(found, carriers[name], epochs)
        close(found["curves"][name], wanted)
    return found["curves"]


@pytest.mark.in_turn
def test_training_begins_as_nnjax_trains(page, x64):
    held_against_nnjax(page, [64, 10, 10, 10], 2, ["transpose", "random"])


@pytest.mark.slow
@pytest.mark.in_turn
def test_training_ends_where_nnjax_ends(page, x64, optimised):
    """The inverse is left out: steps that lead anywhere double each rounding many times."""
    curves = held_against_nnjax(page, [64, 10, 10, 10], 25, ["transpose", "random", "sign"])
    assert curves["transpose"][-1][1] > 0.95
    curves = held_against_nnjax(page, [64, 16, 12, 10], 25, ["transpose", "random", "sign", "pseudo_inverse"])
    assert curves["inverse"] == []


@pytest.mark.slow
@pytest.mark.parametrize("step", [0.25, 0.5, 1])
@pytest.mark.in_turn
def test_what_section_4_says_of_training_is_so(page, step):
    """The transpose learns fastest, random numbers and signs later, the inverse worst, and nothing at all with a step of 1."""
    assert f"{step}" in page.eval_on_selector_all("#train-rate option", "all => all.map(e => e.textContent)")
    curves = page.evaluate(TRAINED, [[64, 10, 10, 10], 25, step])["curves"]
    cost, right = ({name: curve[-1][i] for name, curve in curves.items()} for i in (0, 1))
    assert cost["transpose"] < min(cost["random"], cost["sign"])
    assert max(cost["random"], cost["sign"]) < cost["inverse"]
    assert min(right["random"], right["sign"]) > 0.4
    assert (right["inverse"] < 0.2) == (step == 1)


# What is shown


def type_network(page, net):
    """Into the fields, as a reader would."""
    w, u = net.params.w[-1], net.x
    page.locator("#own").evaluate("e => e.open = true")
    page.select_option("#size-left", str(len(u)))
    page.select_option("#size-right", str(len(w)))
    fields = {f"w_{j + 1}_{k + 1}": v for (j, k), v in np.ndenumerate(w)}
    for name, values in (("u", u), ("b", net.params.b[-1]), ("y", net.y)):
        fields |= {f"{name}_{i + 1}": v for i, v in enumerate(values)}
    for name, value in fields.items():
        root = "#net" if name.startswith("w") else "#own-vectors"
        page.fill(f'{root} [data-field="{name}"]', repr(float(value)))


def held_as_shown(page, net):
    """All numbers of sections 1 to 3, at the last step, with every carrier chosen."""
    n, w = numbers(net), net.params.w[-1]
    page.focus("#step-slider")
    page.keyboard.press("End")
    found = shown(page)
    for name, values in (("a", n.a), ("z", n.z_next), ("delta", n.delta), ("g", n.sent)):
        close([found[f"{name}_{i + 1}"] for i in range(len(values))], values)
    close([found[f"measured_{k + 1}"] for k in range(len(n.a))], n.sent, 1e-5)
    close(found["cost"], n.cost)
    close(found[f"error_{len(n.a)}"], n.by_sum[-1])
    distance = float(page.input_value("#step-length"))
    for name, operator in OPERATORS.items():
        page.check(f'#carriers input[value="{name}"]')
        found = shown(page)
        try:
            back = np.asarray(operator(jnp.asarray(w)))
        except ValueError:
            assert "none" in page.inner_text(f'[data-carrier="{name}"]')
            assert "There is no inverse" in page.inner_text("#question-worth")
            continue
        sent = back @ n.delta
        close([found[f"sent_{name}_{k + 1}"] for k in range(len(sent))], sent)
        close([found[f"change_{name}_{j + 1}"] for j in range(len(w))], w @ sent)
        size = np.linalg.norm(sent * n.slope) or 1.0
        after = cost(net.params, net.x - distance * sent * n.slope / size, net.y)
        close(found[f"after_{name}"], after)
        right = np.allclose(sent, n.sent, rtol=1e-6), np.allclose(w @ sent, n.delta, rtol=1e-6)
        told = page.locator(f'[data-carrier="{name}"] td').all_inner_texts()
        assert told[1:3] == ["yes" if r else "no" for r in right]
        assert ("▲" in told[3]) == (float(after) > n.cost)


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_network_that_is_typed_in_is_computed(open_at, x64):
    page = open_at()
    type_network(page, random_network(1))
    held_as_shown(page, random_network(1))


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.in_turn
def test_ten_random_networks_that_are_typed_in_are_computed(open_at, width, x64):
    page = open_at(width=width)
    for seed in range(10):
        type_network(page, random_network(seed))
        held_as_shown(page, random_network(seed))


@pytest.mark.in_turn
def test_the_network_of_the_command_line_is_shown(open_at, x64):
    n = numbers(with_weights(np.array([[0.8, -0.5], [0.3, 1.2]]), (2, 2, 2)))
    held_as_shown(open_at(address(n)), Network(nielsen.Params((n.w,), (n.b,)), n.z, n.y))


@pytest.mark.parametrize("wrong", ["{", '{"w":[[1,2],[3]]}', '{"w":[[1]],"u":[1],"b":[0],"y":["a"]}', '{"w":[]}', "{null}"])
def test_an_address_that_holds_no_network_is_said(open_at, wrong):
    page = open_at(f"{PAGE.as_uri()}#{wrong}")
    assert "no network" in page.inner_text("#message")
    assert page.input_value('[data-field="w_1_1"]') == "2"


def test_the_first_example_shows_the_inverse_uphill(page):
    assert "uphill" in page.inner_text("#verdict")
    assert page.is_checked('#carriers input[value="inverse"]')
    told = {name: page.locator(f'[data-carrier="{name}"] td').all_inner_texts() for name in ("transpose", "inverse")}
    assert told["transpose"][1:3] == ["yes", "no"]
    assert told["inverse"][1:3] == ["no", "yes"]
    assert ("▼" in told["transpose"][3], "▲" in told["inverse"][3]) == (True, True)
    assert "wrong sign for a1" in page.inner_text("#question-worth").replace("\n", "")


@pytest.mark.slow
@pytest.mark.in_turn
def test_the_verdict_gives_the_angle_to_the_way_down(open_at):
    """At 0 degrees to it a step is the transpose's; only beyond 90 it is said that even a small one goes uphill."""
    page = open_at()
    for name, by in (("inverse", "by the inverse"), ("random", "by random numbers"), ("sign", "by bare signs")):
        page.check(f'#carriers input[value="{name}"]')
        told, angle = page.inner_text("#verdict"), shown(page)[f"angle_{name}"]
        assert by in told
        assert "to the steepest way down" in told
        assert ("beyond 90°" in told) == (angle > 90) == (name == "inverse")
    page.click("[data-preset^='A rotation']")
    page.check('#carriers input[value="inverse"]')
    assert "at 0° to the steepest way down." in page.inner_text("#verdict")


@pytest.mark.slow
@pytest.mark.in_turn
def test_one_weak_weight_blows_the_inverse_up(open_at):
    page = open_at()
    page.click("[data-preset='One weak weight']")
    found = shown(page)
    assert found["sent_inverse_2"] > 100 * found["g_2"] > 0
    assert found["after_transpose"] < found["after_inverse"] - 0.05


@pytest.mark.slow
@pytest.mark.in_turn
def test_the_start_brings_back_the_first_random_numbers(open_at):
    page = open_at()
    first = shown(page)["after_random"]
    page.click("#redraw")
    assert shown(page)["after_random"] != first
    page.click("[data-preset='Back to the start']")
    assert shown(page)["after_random"] == first


@pytest.mark.in_turn
def test_what_is_no_number_is_said_and_changes_nothing(open_at):
    page = open_at()
    before = shown(page)
    for wrong in ("", "x", "101", "1e9", "1 2", "NaN", "Infinity"):
        page.fill('[data-field="w_1_1"]', wrong)
        assert page.get_attribute('[data-field="w_1_1"]', "aria-invalid") == "true"
        assert "from −100 to 100" in page.inner_text("#fault-net")
        assert "Still using 2" in page.inner_text("#fault-net")
        assert shown(page) == before
    page.fill('[data-field="w_1_1"]', " −0,5 ")  # a true minus and a comma
    assert page.inner_text("#fault-net") == ""
    assert shown(page)["z_1"] != before["z_1"]


GROUPS = {  # a field of each group, and where a number shows that it is used
    '#net [data-field="w_1_1"]': "z_1",
    '#own-vectors [data-field="u_1"]': "a_1",
    '#conv-controls [data-field="kernel_2"]': "conv_y_2",
    '#conv-controls [data-field="x_3"]': "conv_x_3",
    '#attention-controls [data-field="v_1"]': "attention_v_1",
    '#norm-inputs [data-field="gamma_1"]': "norm_slope",
}


@pytest.mark.slow
@pytest.mark.parametrize("field", GROUPS)
@pytest.mark.in_turn
def test_a_wrong_value_is_told_beside_its_field_and_the_one_before_it_is_used(open_at, field):
    page = open_at(reduced_motion="reduce")
    for details in page.locator("details").all():
        details.evaluate("e => e.open = true")
    kept, before = page.input_value(field), shown(page)
    page.focus(field)
    page.keyboard.press("Control+a")
    page.keyboard.type("-1e9")  # -1 on the way is a number
    assert shown(page) == before
    told = page.locator(f"#{page.get_attribute(field, 'aria-describedby')}")
    assert f"Still using {kept}." in told.inner_text()
    one, other = told.bounding_box(), page.locator(field).bounding_box()
    assert 0 <= one["y"] - other["y"] < 150
    assert page.locator(field).evaluate("e => getComputedStyle(e).borderTopWidth") == "2px"
    orange = "getComputedStyle(document.documentElement).getPropertyValue('--inverse').trim()"
    red, green, blue = (int(page.evaluate(orange)[i : i + 2], 16) for i in (1, 3, 5))
    assert page.locator(field).evaluate("e => getComputedStyle(e).borderTopColor") == f"rgb({red}, {green}, {blue})"
    page.fill(field, "7")
    assert told.inner_text() == ""
    assert shown(page)[GROUPS[field]] != before[GROUPS[field]]
    page.keyboard.press("Enter")  # the edit is over: from now on this is the number before
    page.keyboard.type("x")
    assert "Still using 7." in told.inner_text()


@pytest.mark.slow
@pytest.mark.in_turn
def test_batch_norm_is_complete_only_with_all_paths_and_a_scale(open_at):
    page = open_at()
    page.fill('[data-field="gamma_1"]', "0")
    assert "proves nothing" in page.inner_text("#norm-verdict")
    page.fill('[data-field="gamma_1"]', "2")
    for i in range(1, 5):
        page.fill(f'#norm-inputs [data-field="delta_{i}"]', "0")
    assert "path that is missing" in page.inner_text("#norm-verdict")
    for path in ("mean", "spread"):
        page.check(f"#norm-terms [value={path}]")
    assert "this is the backward" in page.inner_text("#norm-verdict")


@pytest.mark.slow
@pytest.mark.in_turn
def test_the_parts_on_convolution_attention_and_batch_norm_show_what_they_compute(open_at, x64):
    page = open_at()
    page.fill('#conv-controls [data-field="kernel_2"]', "-3")
    page.select_option("#conv-stride", "2")
    found = shown(page)
    x, kernel, delta = [1, -0.5, 2, 0.5, -1, 1.5], [1, -3, -0.5], [0.5, -1]
    conv = nnjax.conv(1, 1, 3, stride=2, padding="VALID", bias=False)
    params = conv.init(jax.random.key(0))._replace(w=jnp.array(kernel, jnp.float64).reshape(3, 1, 1))
    y, residuals = conv.fwd(params, jnp.array(x).reshape(1, -1, 1))
    close([found[f"conv_y_{p}"] for p in (1, 2)], y.ravel())
    ct_x = conv.bwd(residuals, jnp.array(delta).reshape(1, -1, 1))[1].ravel()
    close([found[f"conv_g_{q}"] for q in range(1, 7)], ct_x)
    for causal in (False, True):
        page.set_checked("#attention-causal", causal)
        found = shown(page)
        p = [[found.get(f"attention_{n}_{i}") for i in range(1, 5)] for n in ("v", "o", "delta", "g")]
        q = jnp.array([[1, 0.2], [0.3, 1], [-0.5, 1.2], [0.8, -0.6]])
        k = jnp.array([[0.5, 1], [1, -0.4], [-0.8, 0.7], [0.2, 0.3]])

        def attend(q, k, v, causal=causal):
            scores = q @ k.T / math.sqrt(2)
            return jax.nn.softmax(jnp.where(jnp.tri(4, dtype=bool) | (not causal), scores, -jnp.inf)) @ v

        o, pull = jax.vjp(attend, q, k, jnp.array(p[0]))
        ct_q, ct_k, ct_v = pull(jnp.array(p[2]))
        close(p[1], o)
        close(p[3], ct_v)
        close([found[f"attention_q2_{i}"] for i in (1, 2)], ct_q[1])
        close([found[f"attention_k3_{i}"] for i in (1, 2)], ct_k[2])
    assert "4 of 4 are wrong" in page.inner_text("#norm-verdict")
    page.check('#norm-terms [value="mean"]')
    assert "are wrong" in page.inner_text("#norm-verdict")
    page.check('#norm-terms [value="spread"]')
    assert "All equal" in page.inner_text("#norm-verdict")
    norm = nnjax.batch_norm(1)
    params = norm.init(jax.random.key(0))._replace(scale=jnp.array([1.5]), offset=jnp.zeros(1))
    x, ct = jnp.array([[1, 2.5, -0.5, 3]]).T, jnp.array([[1, -0.5, 0.3, 0.8]]).T
    found = shown(page)
    ct_x = norm.bwd(norm.fwd(params, x)[1], ct)[1][:, 0]
    close([found[f"norm_found_{i}"] for i in range(1, 5)], ct_x)
    close([found[f"norm_measured_{i}"] for i in range(1, 5)], ct_x, 1e-5)


@pytest.mark.slow
@pytest.mark.in_turn
def test_training_in_the_page_draws_a_curve_for_each_carrier(open_at):
    page = open_at()
    page.focus("#train-start")
    page.keyboard.press("Enter")
    page.locator("#train-status", has_text="Done").wait_for(timeout=120_000)
    wanted = page.evaluate(TRAINED, [[64, 10, 10, 10], 25])["curves"]
    found = shown(page, "#train")
    for name, curve in wanted.items():
        close(found[f"train_cost_{name}"], curve[-1][0])
        close(found[f"train_right_{name}"], 100 * curve[-1][1])
    assert page.locator("#train-cost path.curve").count() == 5
    assert page.locator("#samples canvas").count() == 10
    page.select_option("#train-hidden", "16,12")
    page.locator("#train-status", has_text="no inverse exists").wait_for(timeout=120_000)
    assert page.locator("#train-cost path.curve").count() == 4


@pytest.mark.slow
@pytest.mark.in_turn
def test_training_can_be_stopped_and_tells_its_epoch(open_at):
    page = open_at()
    assert "Not trained" in page.text_content("#train-results caption")
    page.click("#train-start")
    assert page.inner_text("#train-start") == "Stop"
    page.locator("#train-epoch", has_text=re.compile("epoch [1-9]")).wait_for()
    page.click("#train-start")
    page.locator("#train-status", has_text="Stopped after epoch").wait_for()
    assert page.inner_text("#train-start") == "Train again"
    done = page.inner_text("#train-epoch")
    assert int(done.split()[1]) < 25
    assert page.text_content("#train-results caption") == f"After {done}"
    page.wait_for_timeout(300)
    assert page.inner_text("#train-epoch") == done


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_line_in_a_table_is_drawn_as_its_curve(open_at):
    page = open_at()
    page.click("[data-preset^='3 neurons']")  # two curves are the same with an inverse, so here all are there but that one
    drawn = (
        "all => all.map(e => ['stroke', 'stroke-dasharray', 'class'].map(a => e.getAttribute(a).replace(' quiet', '')).join())"
    )
    samples = page.eval_on_selector_all("#carriers .swatch path", drawn)
    assert len(set(samples)) == 5
    assert set(samples) > set(page.eval_on_selector_all("#map path.curve", drawn))
    assert page.locator("#map path.curve.wide").count() == 1
    assert page.locator("#map path.curve").first.get_attribute("class") == "curve wide"  # below the others


# How it is used

CONTROLS = "a[href], button:not(:disabled), select, input, summary, [tabindex='0']"
FOCUSABLE = f"""() => [...document.querySelectorAll("{CONTROLS}")].filter(e => e.type !== "radio" || e.checked).length"""
NAMELESS = """() => [...document.querySelectorAll("button, select, input, [role=button], svg, canvas")].filter(e =>
  !e.ariaHidden &&
  !(e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || (e.localName === "button" && e.textContent.trim())
    || [...(e.labels ?? [])].some(l => l.textContent.trim()))).map(e => e.outerHTML)"""
OUTLINED = """() => {
  const e = document.activeElement;
  if (e === document.body) return true;
  visited.add(e);
  const ring = e.querySelector("circle");
  return getComputedStyle(e).outlineStyle !== "none" || Boolean(ring && parseFloat(getComputedStyle(ring).strokeWidth) >= 4);
}"""


@pytest.mark.in_turn
def test_tab_reaches_every_control_and_each_has_a_name(open_at):
    page = open_at()
    for details in page.locator("details").all():
        details.evaluate("e => e.open = true")
    assert page.evaluate(NAMELESS) == []
    wanted = page.evaluate(FOCUSABLE)
    assert wanted > 60
    page.evaluate("window.visited = new Set()")
    for _ in range(wanted + 5):
        page.keyboard.press("Tab")
        assert page.evaluate(OUTLINED), page.evaluate("document.activeElement.outerHTML")
    assert page.evaluate("visited.size") == wanted


def changes(page, selector, key, where):
    """Whether what stands at `where` is another after the key was pressed on the control."""
    before = page.inner_html(where)
    page.focus(selector)
    page.keyboard.press(key)
    return page.inner_html(where) != before


KEYS = (  # a control, a key, and where something changes
    ("#net svg.backward [data-k='1'][role=button]", "Enter", "#net"),
    ("#net svg.forward [data-j='1'][role=button]", " ", "#net"),
    ("#step-next", "Enter", "#step-equation"), ("#step-slider", "ArrowRight", "#step-equation"),
    ("#step-back", " ", "#step-equation"), ("#nudge-neurons input", "ArrowDown", "#nudge-equation"),
    ("#nudge-slider", "ArrowLeft", "#nudge-equation"), ("#carriers input[value=inverse]", "ArrowUp", "#question-worth"),
    ("#step-length", "ArrowRight", "#verdict"), ("#presets [data-preset^='3 neurons']", "Enter", "#map"),
    ("#redraw", "Enter", "#carriers"), ("#presets [data-preset^='Back']", "Enter", "#map"),
    ("#conv-stride", "ArrowDown", "#conv-trio"), ("#conv-trio svg.backward [data-k='3'][role=button]", "Enter", "#conv-trio"),
    ("#attention-causal", " ", "#attention-trio"), ("#attention-sharp", "ArrowRight", "#attention-trio"),
    ("#attention-trio svg.backward [data-k='1'][role=button]", "Enter", "#attention-trio"),
    ("#norm-terms [value=mean]", " ", "#norm-results"),
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.in_turn
def test_every_control_works_by_keyboard(open_at):
    page = open_at()
    for selector, key, where in KEYS:
        assert changes(page, selector, key, where), selector
    for details in ("#own", "#check details"):
        page.focus(f"{details} summary")
        page.keyboard.press("Enter")
        assert page.locator(details).first.evaluate("e => e.open")
    for size in ("#size-left", "#size-right"):
        assert changes(page, size, "ArrowDown", "#net")
    page.focus("#step-play")
    page.keyboard.press("Enter")
    assert page.inner_text("#step-play") == "Pause"
    page.keyboard.press("Enter")
    assert page.inner_text("#step-play") == "Play"


@pytest.mark.slow
@pytest.mark.in_turn
def test_the_focus_stays_on_next_at_the_last_step(open_at):
    page = open_at()
    page.focus("#step-next")
    for _ in range(int(page.get_attribute("#step-slider", "max")) + 2):
        page.keyboard.press("Enter")
    assert page.get_attribute("#step-next", "aria-disabled") == "true"
    assert page.evaluate("document.activeElement.id") == "step-next"
    assert page.input_value("#step-slider") == page.get_attribute("#step-slider", "max")


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.in_turn
def test_to_point_at_a_neuron_lights_its_row_forward_and_its_column_backward(open_at, width):
    page = open_at(width=width, has_touch=width == 360)
    lit = "all => all.map(e => e.dataset.edge)"
    for j, k in ((1, 1), (0, 1), (1, 0)):
        for side, n in (("forward", f"[data-j='{j}']"), ("backward", f"[data-k='{k}']")):
            neuron = page.locator(f"#net svg.{side} {n}[role=button]")
            neuron.tap() if width == 360 else neuron.hover()
        assert sorted(page.eval_on_selector_all("#net svg.forward .edge.lit", lit)) == [f"{j} 0", f"{j} 1"]
        assert sorted(page.eval_on_selector_all("#net svg.backward .edge.lit", lit)) == [f"0 {k}", f"1 {k}"]
        for side, name in (("forward", f"right {j + 1},"), ("backward", f"left {k + 1},")):
            pressed = page.locator(f"#net svg.{side} [aria-pressed=true]")
            assert pressed.get_attribute("aria-label").startswith(f"neuron on the {name}")
            assert "lit" in pressed.get_attribute("class")
        cell = "all => all.map(e => `${e.dataset.j} ${e.dataset.k}`)"
        assert page.eval_on_selector_all("#net td.row", cell) == [f"{j} 0", f"{j} 1"]
        assert page.eval_on_selector_all("#net td.column", cell) == [f"0 {k}", f"1 {k}"]


WIDER = """() => [...document.querySelectorAll("body *")].filter(e => {
  const box = e.getBoundingClientRect();
  return box.width && !e.closest(".hidden") && (box.right > innerWidth + 1 || box.left < -1);
}).map(e => e.outerHTML.slice(0, 120))"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, pytest.param(1280, marks=pytest.mark.slow)])
@pytest.mark.in_turn
def test_nothing_is_wider_than_the_window_and_both_schemes_have_colours_of_their_own(open_at, width, scheme, tmp_path):
    page = open_at(width=width, color_scheme=scheme, reduced_motion="reduce")
    page.fill("#net [data-field=w_1_1]", "x")
    for preset in ("", "3 neurons", "One weak"):
        if preset:
            page.click(f"[data-preset^='{preset}']")
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
        assert page.evaluate(WIDER) == []
    page.click("#own summary")
    for side in ("left", "right"):
        page.select_option(f"#size-{side}", "5")
    assert page.evaluate(WIDER) == []
    red = page.evaluate("parseInt(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])")
    assert red > 200 if scheme == "light" else red < 60
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert (tmp_path / "page.png").stat().st_size > 50_000


@pytest.mark.in_turn
def test_the_question_is_answered_on_the_first_screen(open_at):
    for width, height in WIDTHS.items():
        page = open_at(width=width)
        assert page.locator("header").bounding_box()["y"] + page.locator("header").bounding_box()["height"] < height
        last = page.locator("#net svg.backward + .equation").bounding_box()
        assert last["y"] + last["height"] <= height


SMALLEST = """() => Math.min(...[...document.querySelectorAll("svg text, svg tspan")]
  .filter(e => e.getClientRects().length)
  .map(e => parseFloat(getComputedStyle(e).fontSize) * e.ownerSVGElement.getScreenCTM().a))"""


@pytest.mark.slow
@pytest.mark.in_turn
def test_a_phone_shows_letters_of_12_pixels_and_the_presets_above_their_table(open_at):
    page = open_at(width=360)
    for preset in ("Back", "3 neurons", "One weak"):
        page.click(f"[data-preset^='{preset}']")
        assert page.evaluate(SMALLEST) >= 12
    presets, table = (page.locator(root).bounding_box() for root in ("#presets", "#carriers"))
    assert 0 <= table["y"] - presets["y"] - presets["height"] < 40


@pytest.mark.slow
@pytest.mark.parametrize(("width", "size"), [(320, "100%"), (360, "200%")])
@pytest.mark.in_turn
def test_nothing_is_cut_on_a_narrow_phone_or_in_large_letters(open_at, width, size):
    page = open_at(width=360)
    page.set_viewport_size({"width": width, "height": 740})
    page.evaluate(f"document.documentElement.style.fontSize = '{size}'")
    for preset in ("Back", "3 neurons", "A singular"):
        page.click(f"[data-preset^='{preset}']")
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width


TOUCHING = """() => [...document.querySelectorAll("#net .neuron")].filter(e => {
  const found = [e.querySelector("circle"), e.querySelector(".value"), e.ownerSVGElement];
  const [circle, value, svg] = found.map(e => e.getBoundingClientRect());
  const beside = value.left > circle.right + 1 || value.right < circle.left - 1;
  return !(beside && value.left >= svg.left - 1 && value.right <= svg.right + 1);
}).map(e => e.textContent)"""


@pytest.mark.slow
@pytest.mark.in_turn
def test_large_numbers_keep_off_their_neurons_on_a_phone(open_at):
    page = open_at(width=360)
    for weight in ("-99.125", "100"):
        for k in (1, 2):
            page.fill(f'#net [data-field="w_1_{k}"]', weight)
        assert page.evaluate(TOUCHING) == []

import importlib.util
import json

import jax
import pytest

from nnjax.bench.peers import Flags, flags


@pytest.mark.parametrize("name", ["torch", "torch.compile", "flax", "equinox"])
def test_a_line_of_80_columns_says_what_a_peer_ran_as(name):
    library = name.partition(".")[0]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    found = flags([name, "another"])
    assert list(found) == [name]
    of, line = found[name], found[name].line(name)
    assert len(line) <= 80, line
    version = importlib.import_module(library).__version__
    assert of.version == version
    assert json.loads(json.dumps(of._asdict())) == of._asdict()
    for word in (name, of.run, f"matmul {of.matmul_precision}", of.optimizer, *([] if "." in name else [version])):
        assert word in line
    assert of.run == {"torch": "eager", "torch.compile": "inductor"}.get(name, "jit")


def test_the_longest_that_is_usual_fits_80_columns():
    torch = Flags("2.13.0+cu130", "eager", 16, "high", "scaled_dot_product_attention is_causal", "SGD fused")
    assert torch.line("torch") == "torch 2.13.0+cu130: eager, 16 threads, matmul high, SDPA is_causal, SGD fused"
    one = torch._replace(run="inductor", threads=1, matmul_precision="highest").line("torch.compile")
    assert one == "torch.compile: inductor, 1 thread, matmul highest, SDPA is_causal, SGD fused"


def test_a_precision_that_was_set_is_reported():
    if importlib.util.find_spec("flax") is None:
        pytest.skip("flax is not installed")
    with jax.default_matmul_precision("highest"):
        assert flags(["flax"])["flax"].matmul_precision == "highest"

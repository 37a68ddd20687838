"""The address of this machine for Gloo to listen at; `test_hosts` makes it listen there."""

from types import SimpleNamespace

import pytest

from nnjax.distributed import gloo


@pytest.mark.parametrize(
    ("host", "address"), [("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1"), ("::1", "::1"), ("host.invalid", None)]
)
def test_the_address_on_the_way_to_process_0(ipv6, host, address):
    if host == "::1" and not ipv6:
        pytest.skip("no IPv6 here")
    assert gloo.own_address(host, 9) == address


def test_the_function_that_jax_calls_gets_the_address_and_others_stay(monkeypatch):
    jaxlib = SimpleNamespace(make_gloo_tcp_collectives=lambda **given: given)
    monkeypatch.setattr(gloo, "import_module", lambda name: jaxlib)
    gloo.listen_at("127.0.0.3")
    assert jaxlib.make_gloo_tcp_collectives(distributed_client=7) == {"distributed_client": 7, "hostname": "127.0.0.3"}
    jaxlib = SimpleNamespace()
    gloo.listen_at("127.0.0.3")
    assert vars(jaxlib) == {}

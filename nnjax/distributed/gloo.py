"""Where Gloo listens, by which the CPUs of several processes talk.

Of itself Gloo takes the address that belongs to the machine's name, on many machines 127.0.1.1, where only their own
processes reach it. jaxlib's `make_gloo_tcp_collectives` takes a `hostname`, but JAX 0.10 to 0.12 calls it without, and has no
option for it: so that function is replaced here, or all left as it is where JAX calls something else. This file can go once
`jax.distributed.initialize`, or an option of JAX, takes the address.
"""

import socket
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any


def own_address(host: str, port: int) -> str | None:
    """The address of this machine on the way to process 0, where the others can reach it; None where that is unknown."""
    try:
        family, kind, _, _, there = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as s:
            s.connect(there)  # sends nothing
            return s.getsockname()[0]
    except OSError:
        return None


def listen_at(address: str) -> None:
    """Have Gloo listen at this address."""
    with suppress(ImportError, AttributeError):
        cpp: Any = import_module("jaxlib._jax")
        cpp.make_gloo_tcp_collectives = partial(cpp.make_gloo_tcp_collectives, hostname=address)

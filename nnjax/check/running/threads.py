"""Run two things at a time: XLA compiles and runs without Python's lock."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import jax

WORKERS = 2
T = TypeVar("T")
R = TypeVar("R")


def in_threads(
    f: Callable[[T], R], items: Sequence[T], last: Callable[[T], bool] = lambda item: False, *, alone: bool = False
) -> list[R]:
    """[f(item) for item in items], two at a time; items for which `last` is true start last.

    alone: one at a time. Programs that communicate need it: with two at once, some devices may start one and some the other,
    and then all wait.

    JAX's context managers hold for one thread. If the caller is inside one (`jax.disable_jit`, a mesh), everything runs in
    this thread instead.
    """
    if len(items) < 2 or alone:
        return [f(item) for item in items]
    with ThreadPoolExecutor(WORKERS) as pool:
        if pool.submit(_settings).result() != _settings():
            return [f(item) for item in items]
        begun = {i: pool.submit(f, items[i]) for i in sorted(range(len(items)), key=lambda i: last(items[i]))}
        return [begun[i].result() for i in range(len(items))]


def _settings() -> tuple[Any, ...]:
    return {name: getattr(jax.config, name, None) for name in jax.config.values}, jax.sharding.get_abstract_mesh()


def once(table: dict[Any, Any], name: Any, make: Callable[[], Any]) -> Any:
    """table[name], made on first use, by one thread while others wait."""
    if name not in table:
        with table.setdefault(("lock", name), threading.Lock()):
            if name not in table:
                table[name] = make()
    return table[name]

import builtins

import pytest

from nnjax.bench.measure import Comparison
from nnjax.bench.plot import bars

FOUND = [Comparison(f"case {i}", 1.0, {"jax.grad": 0.5}, (0.9, 1.1), 1.0, 0.2, 1.0, {"hand": 1}, 5) for i in range(3)]


def test_a_picture_is_written(tmp_path):
    bars(FOUND, tmp_path / "bars.png", "a title")
    assert (tmp_path / "bars.png").read_bytes()[1:4] == b"PNG"


def test_without_matplotlib_the_remedy_is_named(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **how):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **how)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"bench: --plot needs matplotlib: python -m pip install 'nnjax\[notebooks\]'"):
        bars(FOUND, tmp_path / "bars.png", "a title")
    assert not list(tmp_path.iterdir())

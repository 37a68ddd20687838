import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


def pytest_configure(config):
    """Nearly all the time goes into compiling: all but the slow tests run programs that XLA has optimised less."""
    jax.config.update("jax_disable_most_optimizations", config.option.markexpr == "not slow")


@pytest.fixture
def optimised_less():
    """The same for a slow test."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def x64():
    """The test runs in float64."""
    with jax.enable_x64(True):
        yield

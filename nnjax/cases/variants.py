"""Layers whose init hides nothing."""

import jax

from ..layer import Layer


def jittered(layer: Layer) -> Layer:
    """The layer with an init that adds noise: a backward that forgets a scale of 1 or a bias of 0 would pass otherwise."""

    def init(key):
        leaves, treedef = jax.tree.flatten(layer.init(key))
        noise = [0.3 * jax.random.normal(k, p.shape, p.dtype) for k, p in zip(jax.random.split(key, len(leaves)), leaves)]
        return jax.tree.unflatten(treedef, [p + e for p, e in zip(leaves, noise)])

    return layer._replace(init=init)


def frozen(layer: Layer) -> Layer:
    """A batch_norm whose init also makes statistics."""

    def init(key):
        params = layer.init(key)
        return params._replace(mean=0.3 * params.scale, var=2 * params.scale)

    return layer._replace(init=init)

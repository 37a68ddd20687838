"""PyTorch's samples of its modules (ModuleInfo) in the form of samples of a function: the parameters are arguments too."""

from types import SimpleNamespace

FIRST = "parameter "  # before the name of each parameter, among the options


class Module:
    """What `agree` takes, of the module of this name. ours(module, *inputs, **options) gets its parameters among the options,
    as "parameter NAME", and returns all outputs, flat, in one array."""

    def __init__(self, name: str):
        from torch.testing._internal.common_modules import module_db

        (self.info,) = (info for info in module_db if info.module_cls.__name__ == name)

    def sample_inputs(self, device, dtype, requires_grad):
        samples = self.info.module_inputs_func(
            self.info, device=device, dtype=dtype, requires_grad=requires_grad, training=False
        )
        for sample in samples:
            made, given = sample.constructor_input, sample.forward_input
            module = self.info.module_cls(*made.args, **made.kwargs).to(dtype)
            named = {FIRST + name: p for name, p in module.named_parameters()}
            yield SimpleNamespace(input=module, args=given.args, kwargs={**given.kwargs, **named})

    def __call__(self, module, *inputs, **options):
        import torch

        named, others = parameters(options)
        outputs = torch.func.functional_call(module, named, inputs, others)
        return torch.cat([y.reshape(-1) for y in flat(outputs)])


def flat(outputs) -> list:
    """The arrays in an output of tuples, in order."""
    if isinstance(outputs, tuple | list):
        return [y for output in outputs for y in flat(output)]
    return [] if outputs is None else [outputs]


def parameters(options: dict) -> tuple[dict, dict]:
    """The parameters by their names, and the other options."""
    named = {name.removeprefix(FIRST): p for name, p in options.items() if name.startswith(FIRST)}
    return named, {name: value for name, value in options.items() if not name.startswith(FIRST)}

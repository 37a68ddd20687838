"""The cases of convolutions, pools and the networks of images made of them."""

from .. import layers
from ..combinators import residual, serial
from ..models.lenet import lenet
from ..models.resnet import resnet
from .case import Case
from .inputs import steps
from .variants import jittered


def images() -> list[Case]:
    return [*_convolutions(), *_transposed(), *_pools(), *_networks()]


def _convolutions() -> list[Case]:
    grouped = layers.conv(4, 6, (2, 3), stride=(1, 2), padding=((1, 0), (2, 1)), dilation=(2, 1), groups=2)
    above = ((1, 0), (0, 1))
    return [
        Case("conv", jittered(layers.conv(2, 3, (3, 2))), steps(4, 5, 2)),
        Case("conv, 1-D, strided", jittered(layers.conv(2, 3, 3, stride=2)), steps(6, 2)),
        Case("conv, height 1, zeros above", jittered(layers.conv(2, 3, (1, 2), stride=(2, 1), padding=above)), steps(1, 3, 2)),
        Case("conv, height 1, under a higher kernel", jittered(layers.conv(3, 2, (3, 2))), steps(1, 3, 3)),
        Case("conv, grouped, dilated", jittered(grouped), steps(3, 4, 4)),
        Case("conv, depthwise", jittered(layers.conv(3, 6, (2, 2), groups=3, padding="VALID")), steps(3, 4, 3)),
        Case("conv, 3-D", jittered(layers.conv(2, 3, (2, 1, 3), stride=(1, 2, 2), padding=(1, 0, (0, 1)))), steps(2, 3, 4, 2)),
    ]


def _transposed() -> list[Case]:
    make = layers.conv_transpose
    padded = make(4, 6, (2, 3), stride=(3, 2), padding=((0, 1), 2), output_padding=(2, 0), dilation=(1, 2), groups=2)
    volume = make(2, 2, (2, 1, 3), stride=(1, 2, 1), padding=(0, 0, 1), bias=False)
    return [
        Case("conv_transpose", jittered(make(3, 2, (3, 2), stride=2)), steps(2, 3, 3)),
        Case("conv_transpose, 1-D, stride beyond the kernel", jittered(make(2, 3, 2, stride=3, padding="VALID")), steps(3, 2)),
        Case("conv_transpose, grouped, dilated", jittered(padded), steps(3, 3, 4)),
        Case("conv_transpose, 3-D", jittered(volume), steps(2, 2, 3, 2)),
    ]


def _pools() -> list[Case]:
    return [
        Case("max_pool", layers.max_pool((2, 2)), steps(5, 4, 2)),
        Case("max_pool, overlapping", layers.max_pool((3, 2), (1, 1)), steps(4, 4, 2)),
        Case("max_pool, padded", layers.max_pool((3, 3), (2, 2), padding=1), steps(4, 3, 2)),
        Case("max_pool, dilated", layers.max_pool(2, 1, "SAME", dilation=2), steps(5, 2)),
        Case("max_pool, 3-D, a last window partly filled", layers.max_pool((2, 1, 2), ceil_mode=True), steps(2, 2, 3, 2)),
        Case("avg_pool", layers.avg_pool(2, 3), steps(9, 2)),
        Case("avg_pool, overlapping", layers.avg_pool((3, 2), (2, 1)), steps(5, 3, 2)),
        Case("avg_pool, padded", layers.avg_pool((3, 2), (2, 2), 1, ceil_mode=True, count_include_pad=False), steps(4, 3, 2)),
        Case("avg_pool, 3-D", layers.avg_pool((1, 2, 3), (1, 2, 2), (0, 1, 1)), steps(2, 3, 4, 2)),
        Case("adaptive_avg_pool", layers.adaptive_avg_pool((2, 3)), steps(3, 4, 2)),
        Case("global_avg_pool", layers.global_avg_pool(), steps(3, 2, 2)),
        Case("flatten", layers.flatten(2), steps(3, 2)),
    ]


def _networks() -> list[Case]:
    block = serial(layers.conv(2, 3, (3, 3), stride=2, padding=1, bias=False), layers.batch_norm(3))
    shortcut = serial(layers.conv(2, 3, (1, 1), stride=2, bias=False), layers.batch_norm(3))
    small = resnet(2, channels=(2,), blocks=1, activation=layers.tanh(), image=(3, 2, 1))
    return [
        Case("lenet", lenet(2, channels=(2,), hidden=3, activation=layers.tanh(), image=(6, 7, 1)), steps(6, 7, 1)),
        Case("residual with a projection", jittered(residual(block, shortcut)), steps(4, 4, 2)),
        Case("resnet", jittered(small), steps(3, 2, 1)),
    ]

"""The one table of layers, losses, models and inputs that check, bench and tests run over."""

from .. import layers
from ..combinators import parallel, residual, scan_layers, serial
from ..models.char_rnn import char_rnn
from ..models.gpt import gpt
from ..models.lenet import lenet
from ..models.mlp import mlp
from .attention import attentions
from .case import Case
from .inputs import features, ids, steps, with_state
from .losses import of_losses
from .variants import frozen, jittered


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
        Case("max_pool", layers.max_pool((2, 2)), steps(5, 4, 2)),
        Case("max_pool, overlapping", layers.max_pool((3, 2), (1, 1)), steps(4, 4, 2)),
        Case("avg_pool", layers.avg_pool(2, 3), steps(9, 2)),
        Case("avg_pool, overlapping", layers.avg_pool((3, 2), (2, 1)), steps(5, 3, 2)),
        Case("global_avg_pool", layers.global_avg_pool(), steps(3, 2, 2)),
        Case("flatten", layers.flatten(2), steps(3, 2)),
    ]


def _recurrent() -> list[Case]:
    table = []
    for make, cell in ((layers.rnn, False), (layers.gru, False), (layers.lstm, True)):
        name = make.__name__
        table += [
            Case(name, jittered(make(3, 4)), steps(3, 3)),
            Case(f"{name}, carry", jittered(make(3, 2, carry=True)), with_state(2, 3, 2, cell)),
        ]
    return table


def cases() -> tuple[Case, ...]:
    """Every layer, loss and model."""
    activations = [
        layers.sigmoid(), layers.tanh(), layers.relu(), layers.leaky_relu(0.1), layers.elu(), layers.gelu(),
        layers.gelu(approximate=True), layers.silu(), layers.softplus(), layers.softmax(), layers.log_softmax(),
    ]  # fmt: skip
    block = serial(layers.dense(5, 5), layers.tanh(), layers.dropout(0.25))
    table = [
        Case("dense", layers.dense(5, 3), features(5)),
        Case("dense without bias", layers.dense(3, 4, bias=False), features(3)),
        *(Case(a.name, a, features(6)) for a in activations),
        Case("dropout", layers.dropout(0.5), features(6), keyed=True),
        Case("dropout without a key", layers.dropout(0.5), features(6)),
    ]
    table += [
        Case("layer_norm", jittered(layers.layer_norm(6)), features(6)),
        Case("layer_norm of width 2", jittered(layers.layer_norm(2)), features(2)),
        Case("rms_norm", jittered(layers.rms_norm(5)), features(5)),
        Case("group_norm", jittered(layers.group_norm(2, 6)), steps(3, 2, 6)),
        Case("group_norm, a channel each", jittered(layers.group_norm(3, 3)), steps(4, 3)),
        Case("batch_norm", jittered(layers.batch_norm(5)), steps(3, 5)),
        Case("batch_norm, frozen", frozen(jittered(layers.batch_norm(5))), steps(3, 5)),
        Case("embedding", layers.embedding(5, 3), ids(5)),
        Case("learned_positions", layers.learned_positions(5, 3), steps(4, 3)),
        *_recurrent(),
    ]
    table += [
        Case("residual", residual(serial(layers.dense(5, 5), layers.gelu())), features(5)),
        Case("parallel", parallel(layers.dense(5, 3), layers.tanh(), layers.dense(5, 2)), features(5)),
        Case("scan_layers", scan_layers(block, 3), features(5), keyed=True),
        Case("scan_layers, remat", scan_layers(block, 3, remat=True), features(5), keyed=True),
        Case("char_rnn", jittered(char_rnn(5, 3, cell="gru")), ids(5, 3)),
        *_convolutions(),
        *attentions(),
        Case("unembedding", layers.unembedding(5, 3), features(3)),
        *of_losses(),
        Case("lenet", lenet(2, channels=(2,), hidden=3, activation=layers.tanh(), image=(6, 7, 1)), steps(6, 7, 1)),
        Case("gpt", gpt(5, 4, 2, 2, 4, dropout=0.25), ids(5, 3), keyed=True),
        Case("mlp", mlp([6, 5, 4, 3], layers.tanh()), features(6)),
    ]
    return tuple(table)

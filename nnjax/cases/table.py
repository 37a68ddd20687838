"""The one table of layers, losses, models and inputs that check, bench and tests run over."""

from .. import layers
from ..combinators import parallel, residual, scan_layers, serial
from ..models.char_rnn import char_rnn
from ..models.gpt import gpt
from ..models.mlp import mlp
from .attention import attentions
from .case import Case
from .images import images
from .inputs import features, ids, steps
from .llama import llamas
from .losses import of_losses
from .mixture import mixtures
from .recurrence import recurrences
from .variants import frozen, jittered


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
        *recurrences(),
    ]
    table += [
        Case("residual", residual(serial(layers.dense(5, 5), layers.gelu())), features(5)),
        Case("parallel", parallel(layers.dense(5, 3), layers.tanh(), layers.dense(5, 2)), features(5)),
        Case("scan_layers", scan_layers(block, 3), features(5), keyed=True),
        Case("scan_layers, remat", scan_layers(block, 3, remat=True), features(5), keyed=True),
        Case("char_rnn", jittered(char_rnn(5, 3, cell="gru")), ids(5, 3)),
        *images(),
        *attentions(),
        *llamas(),
        *mixtures(),
        Case("unembedding", layers.unembedding(5, 3), features(3)),
        *of_losses(),
        Case("gpt", gpt(5, 4, 2, 2, 4, dropout=0.25), ids(5, 3), keyed=True),
        Case("mlp", mlp([6, 5, 4, 3], layers.tanh()), features(6)),
    ]
    return tuple(table)

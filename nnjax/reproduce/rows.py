"""The rows of `nnjax reproduce nielsen`: the networks of Nielsen's book, chapters 1 to 6, and the accuracies it reports."""

from typing import Any, NamedTuple

from ..data.dataset import Dataset
from ..train.recipe import Recipe, make_recipe


class Row(NamedTuple):
    """A network of the book.  book: its accuracy in percent; of: validation or test; `model` to `l2` as in `make_recipe`.

    batch and epochs are the book's unless `note` says otherwise.  members: the number of networks that vote.
    """

    name: str
    book: float
    of: str
    hidden: tuple[int, ...]
    learning_rate: float
    epochs: int
    model: str = "nielsen"
    channels: tuple[int, ...] = ()
    activation: str | None = None
    loss: str | None = None
    dropout: float = 0.0
    l2: float = 0.0
    batch: int = 10
    expanded: bool = False
    members: int = 1
    note: str = ""

    def recipe(self, data: Dataset, key: Any) -> Recipe:
        """The network and its gradients."""
        return make_recipe(
            self.model, data, hidden=self.hidden, channels=self.channels, activation=self.activation, loss=self.loss,
            dropout=self.dropout, l2=self.l2, key=key,
        )  # fmt: skip

    @property
    def quick(self) -> bool:
        """Whether it is fully connected: minutes rather than hours."""
        return not self.channels


# The program of chapter 6 divides lambda by the number of minibatches, not of examples: with minibatches of 10, and lambda
# over the number of examples here, its 0.1 is 1.0.
LAMBDA_6 = 10 * 0.1
# On 250,000 images the book takes 60 epochs of minibatches of 10. With five times the minibatch and the learning rate,
# training takes the same path, and a CPU is several times as fast.
SHORTER: dict[str, Any] = {"batch": 50, "learning_rate": 5 * 0.03, "expanded": True}
NOTE = "minibatch 50 and rate 0.15 for the book's 10 and 0.03"


def _conv(name: str, book: float, hidden: tuple[int, ...], epochs: int, of_the_book: int, **changes) -> Row:
    note = NOTE if epochs == of_the_book else f"{NOTE}; {epochs} epochs for its {of_the_book}"
    relu = {"model": "lenet", "channels": (20, 40), "activation": "relu", **SHORTER, "note": note}
    return Row(name, book, "test", hidden, epochs=epochs, **{**relu, **changes})


ROWS = (
    Row("[784, 30, 10], quadratic", 95.42, "test", (30,), 3.0, 30),
    Row("[784, 100, 10], quadratic", 96.59, "test", (100,), 3.0, 30),
    Row("[784, 100, 10], cross-entropy, 30 epochs", 97.92, "validation", (100,), 0.5, 30, loss="cross_entropy", l2=5.0),
    Row("[784, 100, 10], cross-entropy, 60 epochs", 98.04, "validation", (100,), 0.1, 60, loss="cross_entropy", l2=5.0),
    Row("fully connected 100, softmax", 97.80, "test", (100,), 0.1, 60, model="mlp", activation="sigmoid"),
    Row("one conv-pool", 98.78, "test", (100,), 0.1, 60, model="lenet", channels=(20,), activation="sigmoid"),
    Row("two conv-pool", 99.06, "test", (100,), 0.1, 60, model="lenet", channels=(20, 40), activation="sigmoid"),
    Row("two conv-pool, ReLU", 99.23, "test", (100,), 0.03, 60, model="lenet", channels=(20, 40), activation="relu",
        l2=LAMBDA_6),
    _conv("expanded", 99.37, (100,), 20, 60, l2=LAMBDA_6),
    _conv("expanded, 300", 99.46, (300,), 20, 60, l2=LAMBDA_6),
    _conv("expanded, 1000", 99.43, (1000,), 10, 60, l2=LAMBDA_6),
    _conv("expanded, two of 100", 99.43, (100, 100), 20, 60, l2=LAMBDA_6),
    _conv("expanded, two of 300", 99.48, (300, 300), 20, 60, l2=LAMBDA_6),
    _conv("expanded, two of 1000", 99.47, (1000, 1000), 10, 60, l2=LAMBDA_6),
    _conv("expanded, two of 1000, dropout", 99.60, (1000, 1000), 40, 40, dropout=0.5),
    _conv("vote of five, dropout", 99.67, (1000, 1000), 40, 40, dropout=0.5, members=5),
)  # fmt: skip

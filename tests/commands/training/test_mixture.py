import dataclasses

from nnjax.commands.options.groups import docs
from nnjax.commands.train import Train
from nnjax.commands.training.mixture import OfMixtures


def test_its_options_are_among_those_of_train_with_their_words():
    names = {f.name for f in dataclasses.fields(OfMixtures)}
    assert names == {"experts", "top_k", "balance", "router_z"}
    assert names <= {f.name for f in dataclasses.fields(Train)}
    assert all(docs(Train)[name] == docs(OfMixtures)[name] != "" for name in names)
    assert Train.parse(["--model", "moe", "--experts", "4", "--top-k", "1"]) == Train(model="moe", experts=4, top_k=1)

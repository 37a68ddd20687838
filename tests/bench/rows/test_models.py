from nnjax.bench.rows.models import whole_models


def test_every_whole_model_of_one_step_stands_beside_other_libraries():
    beside = {entry.name for entry in whole_models() if entry.peers}
    whole = [entry.name for entry in whole_models() if entry.name.startswith(("mlp", "lenet", "char_rnn", "gpt"))]
    assert beside == {name for name in whole if "in a scan" not in name}
    assert len(beside) == 7

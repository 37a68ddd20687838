from nnjax.exercises import EXERCISES


def test_the_names_of_the_arguments_are_those_of_the_forward():
    assert EXERCISES["batch_norm"].names == ["x", "gamma", "beta"]

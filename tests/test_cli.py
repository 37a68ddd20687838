import subprocess
import sys

import pytest

from nnjax.cli import main
from nnjax.train import data, download


def run(*args, capsys):
    with pytest.raises(SystemExit) as caught:
        main(args)
    return caught.value.code, *capsys.readouterr()


def test_train_prints_what_came_of_it(capsys):
    code, out, err = run("train", "--epochs", "2", "--hidden", "8", "4", capsys=capsys)
    assert code == 0, err
    assert "mlp [64, 8, 4, 10], softmax_cross_entropy, adam" in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--data", "digist"), "did you mean 'digits'?"),
        (("--optimizer", "addam"), "did you mean 'adam'?"),
        (("--activation", "tahn"), "did you mean 'tanh'?"),
        (("--loss", "softmax_crossentropy"), "did you mean 'softmax_cross_entropy'?"),
        (("--model", "mpl"), "did you mean 'mlp'?"),
        (("--hidden", "0"), "layer 0 must be a positive int, got 0"),
        (("--batch-size", "5000"), "batch_size must be at most the 1257 training examples"),
        (("--epochs", "-1"), "epochs must be a positive int, got -1"),
        (("--learning-rate", "-1"), "learning rate must be positive"),
        (
            ("--learning-rate", "1e30", "--optimizer", "sgd"),
            "diverged at step 2: the output of 2:dense(64, 10) is the first that is not finite; lower the learning",
        ),
        (("--learning-rate", "1e6"), "so training has diverged; lower the learning rate"),
        (("--learning-rate", "1e6", "--optimizer", "sgd"), "so training has diverged"),
        (("--optimizer-args", "b7", "0.9"), "unknown argument of the optimizer adam 'b7'"),
        (("--schedule", "cosine_decay"), "did you mean 'cosine_decay_schedule'?"),
        (("--clip", "0"), "clip must be positive"),
        (("--weight-decay", "-1"), "weight decay must be at least 0"),
        (("--average", "1"), "must lie between 0 and 1, got 1.0"),
        (("--patience", "0"), "patience must be a positive int"),
        (("--microbatches", "5"), "cannot be shared among 5 equal parts"),
        (("--compute-dtype", "int8"), "dtype must be floating"),
        (("--dropout", "0.5"), "--dropout is an option of lenet and gpt, got it with mlp; leave it out"),
        (("--heads", "2"), "--heads is an option of gpt, got it with mlp; leave it out"),
        (("--model", "nielsen", "--channels", "2"), "--channels is an option of lenet, got it with nielsen"),
        (("--model", "nielsen", "--activation", "relu"), "the model nielsen has sigmoid neurons, got activation 'relu'"),
        (("--data", "mine.npz"), "mine.npz is not there"),
        (("--tensorboard",), "--tensorboard is about a run that is saved"),
        (("--l2", "-1"), "l2 must be at least 0"),
        (("--resume",), "--resume is about a run that is saved; name its place by --folder"),
        (("--grad", "both", "--folder", "run"), "a run with --grad both is not saved"),
    ],
)
def test_bad_input_ends_in_one_sentence_and_exit_code_2(args, message, capsys):
    code, _, err = run("train", *args, capsys=capsys)
    assert code == 2
    assert err.startswith("nnjax: error: ")
    assert message in err
    assert "Traceback" not in err


def test_options_that_do_not_exist_or_do_not_parse_exit_with_2(capsys):
    assert run("train", "--grad", "none", capsys=capsys)[0] == 2
    assert run("train", "--epochs", "many", capsys=capsys)[0] == 2
    assert run("trian", capsys=capsys)[0] == 2


def test_no_network_and_no_data_exits_with_2_and_leaves_nothing(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(data.SOURCES, "mnist", data.SOURCES["mnist"]._replace(mirrors=("http://127.0.0.1:9/",)))
    monkeypatch.setattr(download, "cache_folder", lambda: tmp_path)
    monkeypatch.delenv("NNJAX_DATA", raising=False)
    code, _, err = run("train", "--data", "mnist", capsys=capsys)
    assert code == 2
    assert "could not be downloaded" in err
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_the_console_script_runs_in_a_process_of_its_own():
    code = "from nnjax.cli import main; main(['train', '--epochs', '1', '--optimizer', 'sdg'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "did you mean 'sgd'?" in done.stderr


def test_the_version_is_printed(capsys):
    code, out, _ = run("--version", capsys=capsys)
    assert code in (0, None)
    assert out.startswith("nnjax 0")

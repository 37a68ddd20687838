import io
import resource
import subprocess
import sys
import time

import jax
import pytest

from nnjax.cli import main
from nnjax.commands import train as command
from nnjax.commands.train import Train
from nnjax.commands.training import images as train_images
from nnjax.commands.training import text as train_text
from nnjax.data import catalogue as data
from nnjax.data import download


def run(*args, capsys):
    with pytest.raises(SystemExit) as caught:
        main(args)
    return caught.value.code, *capsys.readouterr()


@pytest.mark.in_turn
def test_train_prints_the_result(capsys):
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
        (("--compute-dtype", "int8"), "unknown --compute-dtype 'int8': known are bfloat16, float16, float32"),
        (("--dropout", "0.5"), "--dropout is an option of lenet, gpt"),
        (("--heads", "2"), "--heads is an option of gpt"),
        (("--model", "nielsen", "--channels", "2"), "--channels is an option of lenet"),
        (("--model", "nielsen", "--activation", "relu"), "the model nielsen has sigmoid neurons only, got activation 'relu'"),
        (("--data", "mine.npz"), "mine.npz does not exist"),
        (("--tensorboard",), "--tensorboard needs a folder"),
        (("--l2", "-1"), "l2 must be at least 0"),
        (("--resume",), "--resume needs a folder for the run; add --folder"),
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


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--seed", str(2**64)), "seed must be from 0 to 4294967295, got 18446744073709551616"),
        (("--seed", "-1"), "seed must be from 0 to 4294967295, got -1"),
        (("--trajectory", "-1"), "trajectory must be at least 0 and less than 2**31, got -1"),
        (("--microbatches", "-4"), "microbatches must be a positive int, got -4"),
        (("--microbatches", "0"), "microbatches must be a positive int, got 0"),
        (("--patience", "-1"), "patience must be a positive int, got -1"),
        (("--save-every", "0", "--folder", "run"), "save_every must be a positive int, got 0"),
        (("--skip-non-finite", "-1"), "skip_non_finite must be at least 0 and less"),
        (("--epochs", str(10**30)), "epochs must be at most 2147483647, got 1000000"),
        (("--epochs", str(2**31 - 1)), "got 2147483647 epochs of 39; pass fewer"),
        (("--batch-size", "0"), "batch_size must be a positive int, got 0"),
        (("--learning-rate", "nan"), "learning rate must be a finite number, got nan"),
        (("--learning-rate", "inf"), "learning rate must be a finite number, got inf"),
        (("--learning-rate", "0"), "learning rate must be positive"),
        (("--clip", "nan"), "clip must be a finite number, got nan"),
        (("--l2", "inf"), "l2 must be a finite number, got inf"),
        (("--l1", "-0.5"), "l1 must be at least 0, got -0.5"),
        (("--weight-decay", "nan"), "weight decay must be a finite number, got nan"),
        (("--average", "nan"), "average must be a finite number, got nan"),
        (("--model", "lenet", "--dropout", "1"), "from 0 to less than 1, got 1.0"),
        (("--optimizer-args", "b1", "nan"), "the argument b1 of the optimizer must be a finite number"),
        (("--optimizer-args", "learning_rate", "1"), "pass --learning-rate"),
        (("--optimizer-args", "mu_dtype", "3"), "the optimizer adam"),
        (("--schedule-args", "decay_steps", "3"), "schedule arguments decay_steps need a schedule"),
        (("--hidden", str(10**12)), "hidden layer 0 must be at most 2147483647, got 1000000"),
        (("--hidden", str(2**31 - 1)), "the parameters and their gradient alone take"),
        (("--data", "tiny_shakespeare", "--layers", "5000"), "layers must be at most 1000, got 5000"),
        (("--data", "tiny_shakespeare", "--width", "30"), "--width must be a multiple of --heads, got 30 and 4"),
        (("--data", "tiny_shakespeare", "--grad", "both", "--compute-dtype", "bfloat16"), "--grad both compares"),
        (
            ("--data", "tiny_shakespeare", "--model", "mlp"),
            "mlp is a model of images and tables, and tiny_shakespeare",
        ),
        (("--feedback", "random", "--grad", "jax"), "--feedback random gives no gradient"),
        (("--folder", __file__), "--folder must be a folder"),
        (("--save-every", "3"), "--save-every needs a folder"),
        (("--devices", "2", "--coordinator", "127.0.0.1:1"), "needs --num-processes"),
        (("--connect-seconds", "0"), "connect_seconds must be a positive int, got 0"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_any_work(args, message, capsys, monkeypatch):
    if "epochs of 39" not in message and "alone take" not in message:  # these two depend on the data
        monkeypatch.setattr(command, "load", lambda *_: pytest.fail("data were read"))
    for module in (train_images, train_text):
        monkeypatch.setattr(module, "compare_gradients", lambda *_, **__: pytest.fail("something was compiled"))
    start = time.perf_counter()
    code, out, err = run("train", *args, capsys=capsys)
    assert time.perf_counter() - start < 2
    assert (code, out) == (2, "")
    assert err.startswith("nnjax: error: ")
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.in_turn
def test_errors_are_printed_soon_after_the_imports():
    """In processor time, relative to that of importing JAX, as machines differ and other processes may run."""

    def seconds(code, expected):
        start = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == expected, done.stderr
        end = resource.getrusage(resource.RUSAGE_CHILDREN)
        return end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime

    refused = "from nnjax.cli import main; main(['train', '--patience', '0'])"
    pairs = [(seconds(refused, 2), seconds("import jax, optax, tyro", 0)) for _ in range(3)]
    ours, theirs = (min(column) for column in zip(*pairs))
    assert ours < 2 * theirs, pairs


@pytest.mark.in_turn
def test_a_character_that_the_terminal_lacks_is_replaced(monkeypatch):
    for encoding in ("cp1252", "ascii"):
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
        monkeypatch.setattr(Train, "run", lambda self: print("it writes: '\U0001f600 \u0436'") or 0)
        with pytest.raises(SystemExit) as caught:
            main(["train"])
        sys.stdout.flush()
        assert caught.value.code == 0
        assert raw.getvalue().startswith(b"it writes: '? ?'")
        monkeypatch.undo()


@pytest.mark.parametrize(
    "error",
    [MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8000000000000 bytes.\nat")],
)
def test_running_out_of_memory_is_one_sentence(error, capsys, monkeypatch):
    def raises(self):
        raise error

    monkeypatch.setattr(Train, "run", raises)
    code, _, err = run("train", capsys=capsys)
    assert code == 2
    assert err.startswith("nnjax: error: out of memory: ")
    assert len(err.splitlines()) == 1
    monkeypatch.setattr(Train, "run", lambda self: (_ for _ in ()).throw(RuntimeError("of another kind")))
    with pytest.raises(RuntimeError, match="of another kind"):
        main(["train"])


def test_no_network_and_no_data_exits_with_2_and_leaves_nothing(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(data.SOURCES, "mnist", data.SOURCES["mnist"]._replace(mirrors=("http://127.0.0.1:9/",)))
    monkeypatch.setattr(download, "cache_folder", lambda: tmp_path)
    monkeypatch.delenv("NNJAX_DATA", raising=False)
    code, _, err = run("train", "--data", "mnist", capsys=capsys)
    assert code == 2
    assert "could not be downloaded" in err
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


@pytest.mark.in_turn
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


@pytest.mark.in_turn
def test_every_command_works_without_the_packages_that_only_tests_need():
    code = (
        "import sys\n"
        "for name in ('pytest', '_pytest', 'hypothesis', 'chex', 'equinox', 'flax', 'nbclient', 'torch'):\n"
        "    sys.modules[name] = None\n"
        "from nnjax.cli import COMMANDS, _loaded\n"
        "for name in COMMANDS:\n"
        "    _loaded(name)\n"
        "print('all', len(COMMANDS))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.startswith("all"), run.stderr

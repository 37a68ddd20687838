"""Data, optimisation steps, and the training loop: `load` or make a `Dataset`, then `fit`."""

from .checkpoint import CheckpointError as CheckpointError
from .checkpoint import Restored as Restored
from .checkpoint import restore as restore
from .checkpoint import save as save
from .data import load as load
from .dataset import DataError as DataError
from .dataset import Dataset as Dataset
from .dataset import Split as Split
from .dataset import expand as expand
from .dataset import load_files as load_files
from .dataset import standardise as standardise
from .fit import Checkpoints as Checkpoints
from .fit import Epoch as Epoch
from .fit import Fit as Fit
from .fit import fit as fit
from .fit import one_hot as one_hot
from .step import TrainState as TrainState
from .step import init_state as init_state
from .step import make_epoch as make_epoch
from .step import make_step as make_step

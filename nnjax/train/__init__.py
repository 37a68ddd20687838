"""Data, optimisation steps, and the training loop: `load` or make a `Dataset`, then `fit`.

>>> digits = nnjax.train.load("digits")
>>> digits.train.x.shape
(1257, 64)
"""

from ..data.catalogue import load as load
from ..data.catalogue import load_files as load_files
from ..data.dataset import DataError as DataError
from ..data.dataset import Dataset as Dataset
from ..data.dataset import Split as Split
from ..data.dataset import standardise as standardise
from ..data.dataset import standardise_targets as standardise_targets
from ..data.images import expand as expand
from ..data.text import Text as Text
from ..data.text import load_text as load_text
from ..models.weights import load_weights as load_weights
from ..models.weights import save_weights as save_weights
from .checkpoint import Restored as Restored
from .checkpoint import restore as restore
from .checkpoint import save as save
from .checkpoint_folder import CheckpointError as CheckpointError
from .fit import fit as fit
from .fit import one_hot as one_hot
from .optimizers import average_parameters as average_parameters
from .optimizers import averaged as averaged
from .optimizers import make_optimizer as make_optimizer
from .run import Checkpoints as Checkpoints
from .run import Epoch as Epoch
from .run import Fit as Fit
from .step import TrainState as TrainState
from .step import init_state as init_state
from .step import make_epoch as make_epoch
from .step import make_step as make_step
from .text import fit_text as fit_text
from .trained.load import Trained as Trained
from .trained.load import load_run as load_run
from .trained.prediction import Numbers as Numbers
from .trained.prediction import Prediction as Prediction
from .watching.finite import first_not_finite as first_not_finite
from .watching.trajectory import trajectory as trajectory
from .watching.truncation import TruncationBias as TruncationBias
from .watching.truncation import truncation_bias as truncation_bias

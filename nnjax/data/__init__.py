"""Data: images, tables and text, which are found, verified and split before training."""

from .catalogue import load as load
from .catalogue import load_files as load_files
from .dataset import DataError as DataError
from .dataset import Dataset as Dataset
from .dataset import Split as Split
from .dataset import standardise as standardise
from .dataset import standardise_targets as standardise_targets
from .images import expand as expand
from .text import Text as Text
from .text import load_text as load_text

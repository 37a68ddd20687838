"""Every layer, loss and model with inputs of its own: what check, bench and the tests run over."""

from .case import LEADS as LEADS
from .case import Case as Case
from .case import quickly as quickly
from .inputs import hard as hard
from .table import cases as cases
from .variants import frozen as frozen
from .variants import jittered as jittered

"""The same models in other libraries, each as fast as its users would have it, and the time of our step over theirs.

Only what is installed is built, and PyTorch is in no extra. Parameters are the library's own random ones: time does not
depend on their values.
"""

from . import pytorch
from .flags import Flags as Flags
from .flags import flags as flags
from .models import char_rnn as char_rnn
from .models import gpt as gpt
from .models import lenet as lenet
from .models import mlp as mlp
from .steps import RATE as RATE
from .steps import descent as descent
from .steps import ratios as ratios

torch_gpt = pytorch.gpt

"""The same models in other libraries, each in the fastest usual way, and the ratio of our step's time to theirs.

Only installed libraries are used, and PyTorch is not in any extra. Each library draws its own random parameters, as time
does not depend on their values.
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

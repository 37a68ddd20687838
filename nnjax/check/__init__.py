from .report import Diagnosis as Diagnosis
from .report import Report as Report
from .report import Row as Row
from .report import merged as merged
from .vjp import check_layer as check_layer
from .vjp import check_pair as check_pair
from .vjp import check_vjp as check_vjp
from .vjp import compare_gradients as compare_gradients

"""Compare a hand-written gradient with `jax.grad`: `check_layer`, `check_vjp`, `check_pair`, `check_transpose`, `audit`."""

from .auditing.audit import audit as audit
from .auditing.audit import intended as intended
from .layers import check_layer as check_layer
from .report import Diagnosis as Diagnosis
from .report import Report as Report
from .report import Row as Row
from .report import merged as merged
from .transpose import check_transpose as check_transpose
from .vjp import check_pair as check_pair
from .vjp import check_vjp as check_vjp
from .vjp import compare_gradients as compare_gradients

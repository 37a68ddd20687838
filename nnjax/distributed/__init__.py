"""From one core to many devices: layers and training over a mesh, every collective beside its transpose.

>>> mesh = nnjax.distributed.make_mesh(data=jax.device_count())
>>> copies = nnjax.distributed.replicated(nnjax.dense(4, 3), "data")
"""

from .attention import head_attention as head_attention
from .cutting.llama import llama as llama
from .cutting.llama import llama_by_groups as llama_by_groups
from .cutting.llama import llama_by_groups_t as llama_by_groups_t
from .cutting.summed import cut_swiglu as cut_swiglu
from .cutting.summed import grouped_attention as grouped_attention
from .dense import column_dense as column_dense
from .dense import row_dense as row_dense
from .loss import mean_over as mean_over
from .mesh import make_mesh as make_mesh
from .mesh import on_mesh as on_mesh
from .mesh import place as place
from .models import gpt as gpt
from .models import gpt_by_heads as gpt_by_heads
from .models import gpt_by_heads_t as gpt_by_heads_t
from .models import gpt_stacked as gpt_stacked
from .models import gpt_stacked_t as gpt_stacked_t
from .models import mlp as mlp
from .models import moe as moe
from .routing.mixture_of_experts import mixture_of_experts as mixture_of_experts
from .sharded import Sharded as Sharded
from .sharded import fully_sharded as fully_sharded
from .sharded import replicated as replicated
from .sharded import residual as residual
from .sharded import scan_layers as scan_layers
from .sharded import serial as serial
from .sharded import tied as tied
from .vocabulary import vocabulary_cross_entropy as vocabulary_cross_entropy
from .vocabulary import vocabulary_embedding as vocabulary_embedding

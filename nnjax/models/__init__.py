"""Models: compositions of layers, without new mathematics; reading and writing their weights; and generating text.

>>> nnjax.models.mlp([784, 30, 10]).init(jax.random.key(0))[0].w.shape
(784, 30)
>>> nnjax.models.BLOCK[0]  # the arrays of a block of GPT-2, as the Hugging Face layout names them
'ln_1.weight'
"""

from .char_rnn import char_rnn as char_rnn
from .decode import generate_gpt as generate_gpt
from .decode_llama import generate_llama as generate_llama
from .generate import generate as generate
from .gpt import gpt as gpt
from .gpt import gpt_block as gpt_block
from .gpt import gpt_initializers as gpt_initializers
from .gpt2 import BLOCK as BLOCK
from .gpt2 import gpt2_from_safetensors as gpt2_from_safetensors
from .gpt2 import gpt2_options as gpt2_options
from .lenet import lenet as lenet
from .llama import llama as llama
from .llama_files import llama_from_safetensors as llama_from_safetensors
from .llama_files import llama_options as llama_options
from .mlp import mlp as mlp
from .moe import moe as moe
from .moe import moe_feed as moe_feed
from .resnet import resnet as resnet
from .weights import load_weights as load_weights
from .weights import save_weights as save_weights

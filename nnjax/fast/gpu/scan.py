"""A scan over layers on a GPU: each step runs a few of them in a row.

A scan stacks every residual of a step and reads it again in the backward, each in its own launch. With several layers in a
row, this happens only once for each step.
"""

AT_A_TIME = 4  # `gpt` of the bench

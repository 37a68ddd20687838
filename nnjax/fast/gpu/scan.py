"""A scan over layers on a GPU: a few of them in a row in each step.

A scan stacks every residual of a step and takes it out again on the way back, each in a launch of its own. Of layers in a row
nothing is stacked but once a step.
"""

AT_A_TIME = 4  # `gpt` of the bench

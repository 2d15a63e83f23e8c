"""Cost model of the GPU kernel: work, floors and a simulated dispatch. Nothing here is measured.

devices   what a GPU can do, each number with its source
batches   lengths of a batch, and the short text form of one
floors    FLOPs, bytes and the times that no kernel can beat
estimate  roughly how long a batch takes, for shares of what nobody timed
items     the plan of a batch, made by the planner that the kernel uses
demand    what each CTA of a plan asks of its SM
engine    fluid simulation of CTAs that share tensor pipes, L2 and DRAM
simulate  one launch of a plan under a strategy
rank      configs by simulated time, the tuner's first guesses
agreement the model against published comparisons
"""

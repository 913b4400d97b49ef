"""Speed claims, measured: what DESIGN promises in ratios, against what people would use instead.

    python -m benchmarks [--only REGEX] [--pairs 5] [--quick]      the table, to benchmarks/results/latest.{json,md}
    python -m benchmarks.gpu [--only REGEX] [--limit-s 420]        true architectures on a GPU, the worker without Ray

Outputs are compared before a time is reported; arms run in turns; threads are pinned to one.
"""

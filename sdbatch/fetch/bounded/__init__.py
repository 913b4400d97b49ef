r"""Decodes strangers' sources in child processes that are bounded in memory and time.

    decoder.py   the worker's side: a few children, what they may take together, who is blamed when one ends
    process.py   one child: started, given sources, ended
    wire.py      what both sides say to each other, and how pixels lie in shared memory
    memory.py    how much memory a source may take
    child.py     the child's side: its bounds, and the loop that decodes

    worker --> socket: which sources, how large  --> child          worker --> shared memory: a file's bytes --> child
    worker <-- socket: what became of them       <-- child          worker <-- shared memory: pixels         <-- child

A decoder is written in C and reads what anybody sent: it may be made to crash, to run for an hour or to ask for all
memory. In a child that costs one row. The child imports neither torch nor Ray, is started afresh (never forked from a
process that has them), is given no environment of ours, and serves many sources, so that it costs a millisecond each.
"""

"""Commands on a node.

One file per way to get there; `local.py` is a process of this machine, behind a prefix such as
`ip netns exec`. What belongs here: starting a program and saying truthfully whether it ran. What does not:
which program, or why.
"""

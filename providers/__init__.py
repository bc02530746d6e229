"""The outside world.

`ports.py` declares the four ports (Cluster, Ovsdb, NodeShell, Clock) and imports nothing of ours. Beside it stands
one folder per way to reach the world (`twin/`, `node/`, `ovsdb/`), and `interpreters.py`, which turns the ops of a
plan into plain requests to ports. What belongs here: side effects outside the journal. What does not: any domain
rule, the name of a kind, or a decision.
"""

"""What takes time: observing, executing, resuming.

The engine drives actions and knows none of them: `observe` turns views into facts, `execute` walks an approved plan
and journals every op, `reach` says what it needs of the outside. What belongs here: time, order, failure. What does
not: a rule of OVS or Kubernetes, or the name of a kind.
"""

"""The whole thinking: values in, values out.

Addresses, desired models, facts, checks, ops, actions, the kinds, the deliveries, the pipeline
(diff, deliver, bracket, order, lint) and the plan document. No I/O, no clock, no client library, no randomness:
the same inputs give the same bytes. A new kind of resource is one file in `kinds/`; what an action does, step by
step, is a pure function in the file of its kind, its delivery, or in `maintenance/`.
"""

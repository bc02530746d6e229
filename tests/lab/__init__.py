"""A lab of real daemons: Open vSwitch and OVN in network namespaces, beside a twin for an API.

What belongs here: building the lab from a World file, being kubelet for its virtual machines, measuring what
they notice, and the tests that need all that. What does not: anything that would make the daemons behave as we
wish; they are the distribution's own, with their own defaults.
"""

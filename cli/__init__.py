"""The command line: one file per verb, rendering, exit codes.

Alone reads the environment, the terminal and the working directory; alone prints and exits; wires the concrete
providers to the engine. What belongs here: words and wiring. What does not: a decision about the network.
"""

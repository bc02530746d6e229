"""Benchmarks: one file each, run by `python -m bench`.

A number here is a ratio of two things measured alternately within one run, or the shape of a curve within one run:
what another machine, or a busier hour, leaves standing. What belongs here: a measurement whose bar is in
`docs/performance.md`, and nothing that the program itself needs.
"""

"""Scenarios that run: worlds and the desired state that goes with them. `ovsplan demo` uses them too."""

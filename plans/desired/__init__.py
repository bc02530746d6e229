"""Desired state: what the user's files declare, and everything that is wrong with them.

`source` reads YAML with positions; `names` holds the rules of names; `models` the documents;
`networks` holds what NADs, attachments and advertisements say of each other; `validation` puts a document
against a model; `load` does it for all texts and compares the documents with each other. No file is read here: texts come in, each with the path to name in messages. What belongs here:
any rule that can be told from the files alone. What does not: a rule that needs the cluster.
"""

from plans.desired.load import load_desired
from plans.desired.models import Desired, Evacuate, NativePolicy, Nic, Rollout, VMNetwork
from plans.desired.networks import WantedNad, wanted_networks

__all__ = [
    "Desired",
    "Evacuate",
    "NativePolicy",
    "Nic",
    "Rollout",
    "VMNetwork",
    "WantedNad",
    "load_desired",
    "wanted_networks",
]

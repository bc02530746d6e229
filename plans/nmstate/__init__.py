"""What is known about nmstate and its operator, as pure rules: documents, names, policies and their steps, owners.

Source of every rule: docs/nmstate-facts.md (measured on the real operator, nmstatectl and NetworkManager).
"""

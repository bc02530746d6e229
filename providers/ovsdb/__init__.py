"""OVSDB over its own protocol (RFC 7047, JSON-RPC).

What belongs here: ways to hand a transaction to a real ovsdb-server and bring its answer back.
What does not: what is in the transaction, what its answer means, or the name of a table.
"""

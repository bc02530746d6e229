"""The journal: what was approved, what was begun, what came of it, and who may write.

SQLite through SQLAlchemy. `schema` has the tables, `store` opens a database (and refuses what it must not touch),
`journal` is the record of runs, `lock` the one-at-a-time. What belongs here: rows. What does not: any decision on
what to do next.
"""

"""The evidence: runs, their records, and what is measured and drawn from them.

Data goes one way through the modules: ``config -> data -> training -> ledger -> sweep``, and
from the records ``metrics -> figures``. Needs the extra ``gmlib[study]``.
"""

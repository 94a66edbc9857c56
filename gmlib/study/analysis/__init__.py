"""Tables from records: measures of runs, and comparisons between runs.

Errors are in percent. A run *diverged* if any of its losses is not finite. Its parameters are then
NaN, and its "error" is that of always answering 0. Diverged runs are included in counts of runs and
left out of averages of errors. Every table that leaves them out says how many.

A table shown on a page is a `text.Table`: numbers, and templates that format them.
"""

from gmlib.study.analysis.budgets import *
from gmlib.study.analysis.closed_form import *
from gmlib.study.analysis.comparisons import *
from gmlib.study.analysis.coordinates import *
from gmlib.study.analysis.curves import *
from gmlib.study.analysis.gates import *
from gmlib.study.analysis.overflow import *
from gmlib.study.analysis.pairs import *
from gmlib.study.analysis.propagation import *
from gmlib.study.analysis.rates import *
from gmlib.study.analysis.readings import *
from gmlib.study.analysis.scale import *
from gmlib.study.analysis.starts import *

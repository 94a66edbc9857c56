"""From records to tables: what is measured of a run, and how runs compare.

Errors are in percent here. A run *diverged* if any of its losses is not finite; its parameters are
then NaN and its "error" is that of always answering 0. Such runs count where runs are counted and
are left out where errors are averaged, and every table that leaves them out says how many.

A table that pages show is a `text.Table`: numbers, and templates by which they are written.
"""

from gmlib.study.analysis.budgets import *
from gmlib.study.analysis.closed_form import *
from gmlib.study.analysis.comparisons import *
from gmlib.study.analysis.curves import *
from gmlib.study.analysis.pairs import *
from gmlib.study.analysis.propagation import *
from gmlib.study.analysis.scale import *
from gmlib.study.analysis.starts import *

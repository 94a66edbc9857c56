"""Figures from tables, one function per figure, in one style.

Colours follow the note: KUMAR red, BL blue, FC grey. Every function returns the figure and leaves
showing and saving it to the caller. The data drawn can be read back from the axes.
"""

from gmlib.study.figures.benchmarks import *
from gmlib.study.figures.budgets import *
from gmlib.study.figures.gates import *
from gmlib.study.figures.layer import *
from gmlib.study.figures.overflow import *
from gmlib.study.figures.propagation import *
from gmlib.study.figures.rates import *
from gmlib.study.figures.settings import *
from gmlib.study.figures.starts import *
from gmlib.study.figures.style import COMPONENT_COLORS as COMPONENT_COLORS
from gmlib.study.figures.style import arm_color as arm_color
from gmlib.study.figures.training import *

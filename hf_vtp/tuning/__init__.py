"""hf_vtp.tune: where, how and how much to prune, found on unlabelled images."""

from .api import Tuned, tune
from .report import TuneReport

__all__ = ["TuneReport", "Tuned", "tune"]

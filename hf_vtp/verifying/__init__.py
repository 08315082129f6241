"""hf_vtp.verify: which promises of pruning hold on a model at hand, with figures."""

from .api import verify
from .report import Check, Report

__all__ = ["Check", "Report", "verify"]

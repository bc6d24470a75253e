"""Prediction of accesses: which keys will be used next, and when."""

from __future__ import annotations

from octavo.memory.prediction.base import Predictor
from octavo.memory.prediction.learned import LearnedOrder
from octavo.memory.prediction.recorded import Recorded
from octavo.memory.prediction.schedule import Schedule

__all__ = ["LearnedOrder", "Predictor", "Recorded", "Schedule"]

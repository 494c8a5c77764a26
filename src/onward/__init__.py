"""Durable multi-stage processes: one row, one table of stages, one loop. A crash at any point loses nothing."""

from onward.app import Onward
from onward.context import Context
from onward.errors import (
    Conflict,
    FlowError,
    InvalidData,
    LeaseLost,
    NotFound,
    OnwardError,
    Refused,
    RetryAfter,
    StoreError,
    Unrecoverable,
)
from onward.flow import END, Every, Flow, Retry, stage
from onward.ports import Event
from onward.process import Condition, Entry, Process, Record

__version__ = "0.1.0"

__all__ = [
    "END",
    "Condition",
    "Conflict",
    "Context",
    "Entry",
    "Event",
    "Every",
    "Flow",
    "FlowError",
    "InvalidData",
    "LeaseLost",
    "NotFound",
    "Onward",
    "OnwardError",
    "Process",
    "Record",
    "Refused",
    "Retry",
    "RetryAfter",
    "StoreError",
    "Unrecoverable",
    "stage",
]

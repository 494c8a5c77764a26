"""Durable multi-stage processes: one row, one table of stages, one loop. A crash at any point loses nothing."""

from onward.actor import Actor, Role
from onward.app import Onward
from onward.context import Context
from onward.errors import (
    Conflict,
    FlowError,
    Forbidden,
    InvalidData,
    LeaseLost,
    NotFound,
    OnwardError,
    QueryError,
    Refused,
    RetryAfter,
    StoreError,
    Unrecoverable,
)
from onward.flow import END, Every, Flow, Retry, stage
from onward.ports import Event
from onward.process import Condition, Entry, Process, Record
from onward.secret import Secret

__version__ = "0.1.0"

__all__ = [
    "END",
    "Actor",
    "Condition",
    "Conflict",
    "Context",
    "Entry",
    "Event",
    "Every",
    "Flow",
    "FlowError",
    "Forbidden",
    "InvalidData",
    "LeaseLost",
    "NotFound",
    "Onward",
    "OnwardError",
    "Process",
    "QueryError",
    "Record",
    "Refused",
    "Retry",
    "RetryAfter",
    "Role",
    "Secret",
    "StoreError",
    "Unrecoverable",
    "stage",
]

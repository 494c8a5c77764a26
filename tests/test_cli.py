"""The command line: what each command prints, where it prints it, and with which code it ends."""

from __future__ import annotations

import json
import re
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from conftest_cli import SHOP, Project, lines

from onward.cli import COMMANDS, cli
from onward.cli.group import Command

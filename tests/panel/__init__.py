"""The control panel: its pages as facts and as HTML, its door, and what it does in a real browser."""

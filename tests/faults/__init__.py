"""The fault proof: real programs on one SQLite file, killed, stopped and disturbed; then everything they left is checked."""

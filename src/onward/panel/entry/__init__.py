"""Who may come in, what their requests may hold, and what is open to everybody."""

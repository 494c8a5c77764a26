"""What people do: each action is one POST, asked of control."""

"""What pages show of a process and of a store, before it is drawn."""

"""How processes are told to people and to programs: what the command line and the panel say with the same words."""

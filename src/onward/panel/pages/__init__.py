"""The pages, one file each: what stands on it, as facts."""

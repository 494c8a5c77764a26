"""The job that Onward exists for: ask a model about documents, and leave nothing behind. `flow` is the job, `main` shows it."""

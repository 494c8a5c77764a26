"""The plug for a SQLite file: `SqliteStore` in store.py, and what it is made of. Its SQL is store/sqlite.sql."""

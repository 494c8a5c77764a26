"""The plug for a PostgreSQL database: `PostgresStore` in store.py, and what it is made of. Its SQL is store/postgres.sql."""

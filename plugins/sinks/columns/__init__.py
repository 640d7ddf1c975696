"""The `columns` sink: tables in CSV and Parquet."""

"""``neurovocal scan``: label whole archives on this machine or on a Dask cluster."""

"""The report on a bundle: one HTML page that shows what was learned, and how well."""

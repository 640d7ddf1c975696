"""Discovery without labels: segments, features, clusters, a map, draft annotations."""

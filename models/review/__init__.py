"""Command `neurovocal review`, and folders of annotations and clips for it."""

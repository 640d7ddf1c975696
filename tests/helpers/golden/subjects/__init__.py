"""What is recorded, a module for each subject."""

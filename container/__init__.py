"""container: what makes the images, run while they are built."""

"""What is in a folder of images, before any training: a report with figures, plots and samples."""
